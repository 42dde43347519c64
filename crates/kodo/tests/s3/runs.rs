//! Services whose store it is.

use std::fs;

use kodo_contract::ContentHash;
use kodo_dev::harness::Service;
use serde_json::{Value, json};

use crate::large::{artifacts, get, large, left, printed, run};
use crate::scratch::Scratch;
use crate::server::{BUCKET, Server, secret_key};
use crate::support::{DEMO_INTENT, World};

fn path_of(content: &str) -> String {
    format!("/artifacts/{}", ContentHash::of(content.as_bytes()))
}

/// Why a run failed.
fn reason(view: &Value) -> &Value {
    assert_eq!(view["status"], "failed", "{view:#}");
    let all = view["artifacts"].as_array().unwrap();
    let error = all.iter().find(|it| it["kind"] == "error").unwrap();
    &error["inline"]
}

async fn report(world: &World, arguments: &[&str]) -> Value {
    let ended = artifacts(world, arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

#[tokio::test]
async fn what_runs_leave_is_there_once_and_can_be_had_verified_and_collected() {
    let scratch = Scratch::new("s3_runs");
    let server = Server::start("runs").await;
    let world = large(
        "s3_runs",
        &scratch,
        &server.environment(BUCKET, &secret_key()),
    )
    .await;
    for _ in 0..2 {
        assert_eq!(run(&world).await["status"], "succeeded");
    }
    assert_eq!(get(&world, &path_of(&left()), &[]).await.text(), left());
    let part = get(&world, &path_of(&left()), &[("range", "bytes=16-19")]).await;
    assert_eq!((part.status, part.text().as_str()), (206, "0123"));
    let hash = ContentHash::of(printed().as_bytes()).into_string();
    let got = artifacts(&world, &["get", &hash]).await;
    assert_eq!((got.code, got.stdout), (Some(0), printed()));

    let verified = report(&world, &["verify", "-o", "json"]).await;
    assert_eq!(
        (&verified["stored"], &verified["objects"]),
        (&json!(8), &json!(4)),
        "two runs, content once: {verified:#}"
    );

    // What no row names: as a killed writer leaves it.
    let instance = fs::read_dir(server.objects().join("of/tests"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let orphan = ContentHash::of(b"orphan").into_string();
    let folder = instance.path().join("sha256").join(&orphan[..2]);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(&orphan), "orphan").unwrap();
    let gc = ["gc", "--grace", "0", "-o", "json"];
    let removed = report(&world, &gc).await;
    assert_eq!(
        (&removed["named"], &removed["removed"]),
        (&json!(4), &json!(1)),
        "{removed:#}"
    );
    assert!(!folder.join(&orphan).exists());
    report(&world, &["verify", "-o", "json"]).await;
}

/// What a service says that does not start with these settings, which the world has from now on.
async fn refused(world: &mut World, environment: Vec<(&str, String)>) -> String {
    world.service.kill9().await.unwrap();
    for (name, value) in environment {
        world.options = world.options.clone().env(name, value);
    }
    Service::start(&world.options)
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn a_wrong_secret_starts_no_service_and_collects_nothing() {
    let scratch = Scratch::new("s3_denied");
    let server = Server::start("runs_denied").await;
    let right = server.environment(BUCKET, &secret_key());
    let mut world = large("s3_denied", &scratch, &right).await;
    assert_eq!(run(&world).await["status"], "succeeded");
    let said = refused(&mut world, server.environment(BUCKET, "not-the-secret")).await;
    assert!(
        said.contains("does not work") && said.contains("403 Forbidden"),
        "{said}"
    );
    assert!(!said.contains("not-the-secret"), "{said}");
    let gc = artifacts(&world, &["gc"]).await;
    assert_eq!(gc.code, Some(1), "{gc:?}");
    assert!(
        gc.stderr
            .starts_with("kodo: the artifact store refused: 403 Forbidden: SignatureDoesNotMatch"),
        "{gc:?}"
    );
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_not_taken_for_an_empty_one() {
    let scratch = Scratch::new("s3_elsewhere");
    let server = Server::start("runs_elsewhere").await;
    let right = server.environment(BUCKET, &secret_key());
    let mut world = large("s3_elsewhere", &scratch, &right).await;
    assert_eq!(run(&world).await["status"], "succeeded");
    // To a read this server says that the key is missing, so the store has not the mark of this product database.
    let elsewhere = server.environment("no-such-bucket", &secret_key());
    let said = refused(&mut world, elsewhere).await;
    assert!(said.contains("s3://no-such-bucket"), "{said}");
    let gc = artifacts(&world, &["gc"]).await;
    assert!(gc.code != Some(0), "{gc:?}");
    assert!(gc.stderr.contains("no-such-bucket"), "{gc:?}");
}

#[tokio::test]
async fn a_step_waits_for_a_server_that_was_killed_and_goes_on_when_it_is_back() {
    let scratch = Scratch::new("s3_back");
    let mut server = Server::start("runs_back").await;
    let world = large(
        "s3_back",
        &scratch,
        &server.environment(BUCKET, &secret_key()),
    )
    .await;
    assert_eq!(run(&world).await["status"], "succeeded");
    // All content, and not the mark, without which it is another store.
    for instance in fs::read_dir(server.objects().join("of/tests")).unwrap() {
        fs::remove_dir_all(instance.unwrap().path().join("sha256")).unwrap();
    }
    server.kill().await;
    let mut log = world.service.follow_log();
    let intent = world.intent(DEMO_INTENT).await;
    let waiting = world.run(&intent).await;
    tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while !log
            .recv()
            .await
            .expect("a service")
            .contains("a step waits for the artifact store")
        {}
    })
    .await
    .expect("the step waits");
    let away = get(&world, &path_of(&left()), &[]).await;
    assert_eq!(
        (away.status, away.text().as_str()),
        (503, r#"{"error":"unavailable"}"#)
    );
    let verified = artifacts(&world, &["verify"]).await;
    assert_eq!(verified.code, Some(2), "{verified:?}");

    server.again().await;
    assert_eq!(world.ended(&waiting).await["status"], "succeeded");
    // All that was there before the failure is there again: the second run stored it anew.
    report(&world, &["verify", "-o", "json"]).await;
}

#[tokio::test]
async fn a_step_waits_as_long_as_it_may_and_then_says_that_the_store_is_unavailable() {
    let scratch = Scratch::new("s3_away");
    let mut server = Server::start("runs_away").await;
    let mut environment = server.environment(BUCKET, &secret_key());
    environment.push(("ARTIFACT_STORE_PATIENCE_MS", "500".to_owned()));
    let world = large("s3_away", &scratch, &environment).await;
    server.kill().await;
    let view = run(&world).await;
    assert_eq!(
        reason(&view)["code"],
        "artifact_store_unavailable",
        "{view:#}"
    );
    server.again().await;
    assert_eq!(run(&world).await["status"], "succeeded");
}
