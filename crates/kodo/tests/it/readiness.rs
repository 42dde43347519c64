//! `/healthz`, `/readyz`, and what every other route says while the databases are away.

use std::time::{Duration, Instant};

use crate::test_databases::TestDatabases;
use hyper::Method;
use kodo_dev::harness::{Answer, Client, Service};
use serde_json::json;
use tokio::task::JoinSet;

use crate::api::{NO_INTENT, NO_RUN, got, shown};
use crate::door::{Door, Stand};
use crate::support::{DEMO_INTENT, World, program, server, until};

/// The contract's bound on an answer without a database.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Asks every route that needs the database, all at once, and checks that each says 503 promptly; and that
/// `/healthz` does not mind.
async fn all_unavailable(client: &Client) {
    let mut asked = JoinSet::new();
    let run = format!("/intents/{NO_INTENT}/run");
    let view = format!("/runs/{NO_RUN}");
    for (method, path) in [
        (Method::POST, "/intents"),
        (Method::POST, run.as_str()),
        (Method::GET, view.as_str()),
        (Method::HEAD, view.as_str()),
        (Method::POST, "/crashdemo?wf=x"),
        (Method::GET, "/marks?wf=x"),
    ] {
        let (client, path) = (client.clone(), path.to_owned());
        asked.spawn(async move {
            let started = Instant::now();
            let answer = client.send(method.clone(), &path, &[], DEMO_INTENT).await;
            (
                format!("{method} {path}"),
                answer.expect("an answer"),
                started.elapsed(),
            )
        });
    }
    let started = Instant::now();
    let alive = client.get("/healthz").await.expect("an answer");
    assert_eq!(shown(&alive), r#"200 {"ok":true}"#);
    assert!(started.elapsed() < Duration::from_secs(1), "/healthz waits");
    while let Some(asked) = asked.join_next().await {
        let (request, answer, took): (String, Answer, Duration) = asked.expect("a request");
        assert_eq!(answer.status, 503, "{request}: {}", answer.text());
        if !request.starts_with("HEAD") {
            assert_eq!(answer.text(), r#"{"error":"unavailable"}"#, "{request}");
        }
        let after: u32 = answer
            .header("retry-after")
            .expect(&request)
            .parse()
            .expect("seconds");
        assert!(after >= 1, "{request}");
        assert!(answer.header("x-request-id").is_some(), "{request}");
        assert!(took < PROMPTLY, "{request} took {took:?}");
    }
}

#[tokio::test]
async fn a_service_that_waits_for_its_database_says_what_it_waits_for_and_then_works() {
    let databases = TestDatabases::one(&program(), &server(), "ready_boot")
        .await
        .unwrap();
    let door = Door::before(&server().host, server().port, Stand::Shut);
    let options = kodo_dev::harness::ServiceOptions::new(program())
        .envs(databases.databases.environment())
        .env("DB_PORT", door.port);
    let mut service = Service::spawn(&options).await.unwrap();
    let client = service.client();
    let unready = client.get("/readyz").await.unwrap();
    insta::assert_snapshot!(
        shown(&unready),
        @r#"503 {"ready":false,"checks":{"appDatabase":"unreachable","systemDatabase":"unreachable","migrations":"unknown","engine":"starting","draining":"no"}}"#
    );
    assert_eq!(unready.header("content-type"), Some("application/json"));
    all_unavailable(&client).await;
    let admin = service.admin();
    let engine = admin.get("/dbos-healthz").await.unwrap();
    assert_eq!(shown(&engine), r#"503 {"error":"unavailable"}"#);

    door.set(Stand::Open);
    service.ready().await.unwrap();
    let created = client.post("/intents", DEMO_INTENT).await.unwrap();
    assert_eq!(created.status, 201);
    let engine = admin.get("/dbos-healthz").await.unwrap();
    assert_eq!(shown(&engine), r#"200 {"status":"healthy"}"#);
    drop(service);
}

#[tokio::test]
async fn without_a_database_every_request_is_503_promptly_and_the_service_is_well_when_it_is_back()
{
    let door = Door::before(&server().host, server().port, Stand::Open);
    let mut world = World::with("ready_outage", |options| options.env("DB_PORT", door.port)).await;
    let pid = world.service.pid();
    let intent = world.intent(DEMO_INTENT).await;
    for stand in [Stand::Shut, Stand::Silent] {
        door.set(stand);
        all_unavailable(&world.client).await;
        until("/readyz to say that the databases are away", || async {
            let unready = world.client.get("/readyz").await.unwrap();
            let checks = &unready.json()["checks"];
            unready.status == 503
                && checks["appDatabase"] == "unreachable"
                && checks["systemDatabase"] == "unreachable"
        })
        .await;

        door.set(Stand::Open);
        world.service.ready().await.unwrap();
        assert_eq!(world.service.pid(), pid, "the same process");
        let run = world.run(&intent).await;
        assert_eq!(world.ended(&run).await["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_schema_that_is_not_this_versions_makes_the_service_unready() {
    let world = World::new("ready_migrations").await;
    let checked = async || {
        let answer = world.client.get("/readyz").await.unwrap();
        (answer.status, answer.json()["checks"]["migrations"].clone())
    };
    assert_eq!(checked().await, (200, json!("ok")));
    for (statement, verdict) in [
        (
            "INSERT INTO app.schema_migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'of a later version', true, '', 0)",
            "newer",
        ),
        ("DELETE FROM app.schema_migrations", "pending"),
        ("DROP TABLE app.schema_migrations", "pending"),
    ] {
        sqlx::query(statement).execute(&world.app).await.unwrap();
        assert_eq!(checked().await, (503, json!(verdict)), "{statement}");
    }
    // Unready is not dead.
    assert_eq!(shown(&got(&world, "/healthz").await), r#"200 {"ok":true}"#);
}
