//! Which requests there are, what each answers with, and what holds for every answer.

use hyper::Method;

use crate::api::{NO_INTENT, NO_RUN, got, is_id, normal, refusal, shown};
use crate::raw::{Raw, post_head, request};
use crate::support::{DEMO_INTENT, World, text};

#[tokio::test]
async fn every_request_of_the_table_succeeds_as_the_table_says() {
    let world = World::with("routes_table", |options| options.env("WF_SLEEP_MS", 0)).await;
    insta::assert_snapshot!(shown(&got(&world, "/healthz").await), @r#"200 {"ok":true}"#);
    insta::assert_snapshot!(
        shown(&got(&world, "/readyz").await),
        @r#"200 {"ready":true,"checks":{"appDatabase":"ok","systemDatabase":"ok","migrations":"ok","engine":"ok","draining":"no"}}"#
    );

    let post = async |path: String, body: &'static str| {
        world.client.post(&path, body).await.expect("an answer")
    };
    let created = post("/intents".into(), DEMO_INTENT).await;
    insta::assert_snapshot!(shown(&created), @r#"201 {"intentId":"it_ID"}"#);
    let intent = text(&created, "intentId");
    assert!(is_id(&intent, "it_"), "{intent}");

    let accepted = post(format!("/intents/{intent}/run"), "{}").await;
    insta::assert_snapshot!(shown(&accepted), @r#"202 {"runId":"run_ID","workflowId":"run_ID"}"#);
    let run = text(&accepted, "runId");
    assert!(is_id(&run, "run_"), "{run}");

    let demo = post("/crashdemo?wf=table-1".into(), "").await;
    insta::assert_snapshot!(shown(&demo), @r#"202 {"accepted":true,"workflowId":"table-1"}"#);
    insta::assert_snapshot!(shown(&got(&world, "/marks?wf=nobody").await), @r#"200 {"s1":0,"s2":0}"#);

    let ended = world.ended(&run).await;
    assert_eq!(ended["status"], "succeeded");
    for answer in [created, accepted, demo, got(&world, "/healthz").await] {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let id = answer.header("x-request-id").expect("a request id");
        assert_eq!(id.len(), 36, "{id} is a UUID where the caller sent none");
    }
}

#[tokio::test]
async fn ids_sort_by_the_time_of_their_making_also_across_restarts() {
    let mut world = World::new("routes_ids").await;
    let mut ids = Vec::new();
    for restart in [false, true] {
        if restart {
            let options = world.options.clone();
            world.restart(&options).await;
        }
        for _ in 0..5 {
            let intent = world.intent(DEMO_INTENT).await;
            ids.push(world.run(&intent).await);
        }
    }
    assert!(ids.is_sorted(), "{ids:#?}");
    ids.dedup();
    assert_eq!(ids.len(), 10);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_a_wrong_method_405_with_allow() {
    let world = World::new("routes_errors").await;
    for path in [
        "/",
        "/nothing",
        "/HEALTHZ",
        "/healthz/",
        "/intents/",
        "//intents",
        "/intent/x",
        "/intents/x/runs",
        "/intents/x/run/",
        "/run",
        "/runs/",
        "/runs/x/y",
        "/dbos-healthz",
        "/%00",
        "/runs/..%2f..%2fetc/passwd",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let found = refusal(&world, method, path, &[], "").await;
            assert_eq!(found, r#"404 {"error":"not found"}"#, "{method} {path}");
        }
    }
    for (path, allowed) in [
        ("/healthz", "GET,HEAD"),
        ("/readyz", "GET,HEAD"),
        ("/intents/x/run", "POST"),
        ("/runs/x", "GET,HEAD"),
        ("/crashdemo?wf=x", "POST"),
        ("/marks?wf=x", "GET,HEAD"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if allowed.split(',').any(|allowed| allowed == method) {
                continue;
            }
            let found = refusal(&world, method, path, &[], "").await;
            assert_eq!(
                found, r#"405 {"error":"method not allowed"}"#,
                "{method} {path}"
            );
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = world.client.send(method, path, &[], "").await.unwrap();
            assert_eq!(answer.header("allow"), Some(allowed), "{path}");
        }
    }

    // What has the form of a route and is not there says what is missing.
    for id in [NO_INTENT, NO_RUN, "x", "%00", "%ff", "it_", "a%2Fb", "é"] {
        // Looked up before the body is judged.
        for body in ["", "{bad", r#"{"unknownField":"x"}"#, "{}"] {
            let run = refusal(&world, "POST", &format!("/intents/{id}/run"), &[], body).await;
            assert_eq!(run, r#"404 {"error":"intent not found"}"#, "{id} {body}");
        }
        let view = refusal(&world, "GET", &format!("/runs/{id}"), &[], "").await;
        assert_eq!(view, r#"404 {"error":"run not found"}"#, "{id}");
    }
}

#[tokio::test]
async fn head_answers_wherever_get_does_with_the_same_head_and_no_body() {
    let world = World::new("routes_head").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    for path in [
        "/healthz",
        "/readyz",
        &format!("/runs/{run}"),
        &format!("/runs/{NO_RUN}"),
        "/runs/x",
        "/marks?wf=x",
        "/marks",
        "/intents",
        "/nothing",
    ] {
        let get = world.client.get(path).await.unwrap();
        let head = world
            .client
            .send(Method::HEAD, path, &[], "")
            .await
            .unwrap();
        assert_eq!(head.status, get.status, "{path}");
        for name in ["content-type", "content-length", "allow"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert!(head.body.is_empty(), "{path}");
        assert!(head.header("x-request-id").is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_sane_request_id_is_echoed_and_any_other_replaced() {
    let world = World::new("routes_request_id").await;
    let long = "x".repeat(128);
    let too_long = "x".repeat(129);
    for (sent, kept) in [
        ("01ab-CD_e.f:9", true),
        (&long, true),
        (&too_long, false),
        ("a b", false),
        ("\"quoted\"", false),
        ("", false),
    ] {
        for path in ["/healthz", "/nothing"] {
            let answer = world
                .client
                .send(Method::GET, path, &[("x-request-id", sent)], "")
                .await
                .unwrap();
            let id = answer.header("x-request-id").expect("a request id");
            assert_eq!(id == sent, kept, "{sent:?} became {id:?}");
        }
    }
    let admin = world.service.admin().get("/dbos-healthz").await.unwrap();
    assert_eq!((admin.status, admin.headers.len() > 2), (200, true));
    assert!(admin.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_request_may_have_any_content_type_and_come_in_one_go_with_others() {
    let world = World::new("routes_content_type").await;
    for header in [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: application/json",
        "X-Nothing: at all",
    ] {
        let mut raw = Raw::connect(world.service.port).await;
        let length = format!("Content-Length: {}", DEMO_INTENT.len());
        raw.send(request(
            "POST",
            "/intents",
            &[header, &length],
            DEMO_INTENT.as_bytes(),
        ))
        .await;
        let answer = raw.answer().await;
        assert_eq!(
            normal(&answer.shown()),
            r#"201 {"intentId":"it_ID"}"#,
            "{header}"
        );
    }

    let mut raw = Raw::connect(world.service.port).await;
    let mut bytes = request("GET", "/healthz", &[], b"");
    bytes.extend(post_head("/intents", DEMO_INTENT.len()));
    bytes.extend_from_slice(DEMO_INTENT.as_bytes());
    bytes.extend(post_head("/intents", 4));
    bytes.extend_from_slice(b"{bad");
    bytes.extend(request("GET", "/nothing", &["Connection: close"], b""));
    raw.send(bytes).await;
    let mut shown = Vec::new();
    for _ in 0..4 {
        let answer = raw.answer().await;
        assert!(answer.header("x-request-id").is_some());
        shown.push(normal(&answer.shown()));
    }
    assert_eq!(
        shown,
        [
            r#"200 {"ok":true}"#,
            r#"201 {"intentId":"it_ID"}"#,
            r#"400 {"error":"invalid json"}"#,
            r#"404 {"error":"not found"}"#,
        ]
    );
    assert!(raw.is_closed().await);
}
