//! Answers while the schema, the engine or the database is missing, and during a drain.

use kodo_server::{Readiness, admin_router, product_router};

use crate::support::{ask, booted, config, fixture};

#[tokio::test]
async fn healthz_answers_without_a_database_and_before_boot() {
    let router = product_router(&fixture(config(), Readiness::new()).app);
    let answer = ask(&router, "GET /healthz", &[], "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"ok":true}"#)
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn readyz_names_what_fails() {
    let fixture = fixture(config(), Readiness::new());
    fixture.engine.set_launched(None);
    fixture.engine.begin_drain();
    for router in [product_router(&fixture.app), admin_router(&fixture.app)] {
        let answer = ask(&router, "GET /readyz", &[], "").await;
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.body,
            r#"{"ready":false,"checks":{"appDatabase":"unreachable","systemDatabase":"unreachable","migrations":"unknown","engine":"starting","draining":"yes"}}"#
        );
    }
}

#[tokio::test]
async fn dbos_healthz_follows_the_engine() {
    let fixture = booted(config());
    let router = admin_router(&fixture.app);
    let answer = ask(&router, "GET /dbos-healthz", &[], "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, r#"{"status":"healthy"}"#)
    );
    fixture.engine.set_launched(None);
    assert_eq!(ask(&router, "GET /dbos-healthz", &[], "").await.status, 503);
}

#[tokio::test]
async fn before_the_schema_is_there_whatever_needs_it_is_unavailable() {
    let router = product_router(&fixture(config(), Readiness::new()).app);
    for request in [
        "POST /intents",
        "POST /intents/x/run",
        "GET /runs/x",
        "GET /marks?wf=x",
        "POST /crashdemo?wf=x",
    ] {
        let answer = ask(&router, request, &[], "{}").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, r#"{"error":"unavailable"}"#),
            "{request}"
        );
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn a_draining_process_takes_no_work_and_still_answers_reads() {
    let fixture = booted(config());
    fixture.engine.begin_drain();
    let router = product_router(&fixture.app);
    for request in [
        "POST /intents",
        "POST /intents/x/run",
        "POST /crashdemo?wf=x",
    ] {
        assert_eq!(
            ask(&router, request, &[], "").await.status,
            503,
            "{request}"
        );
    }
    assert_eq!(ask(&router, "GET /runs/%00", &[], "").await.status, 404);
}

#[tokio::test]
async fn without_a_database_requests_are_told_so_in_time() {
    let intent = r#"{"goal":"g","inputs":{},"constraints":{}}"#;
    let run = format!("/runs/run_{}", "0".repeat(32));
    let create = format!("/intents/it_{}/run", "0".repeat(32));
    let router = product_router(&booted(config()).app);
    for (request, body) in [
        ("POST /intents".to_owned(), intent),
        (format!("POST {create}"), "{not json"),
        (format!("GET {run}"), ""),
        ("GET /marks?wf=x".to_owned(), ""),
    ] {
        let started = std::time::Instant::now();
        let answer = ask(&router, &request, &[], body).await;
        assert!(started.elapsed().as_secs() < 5, "{request}");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, r#"{"error":"unavailable"}"#),
            "{request}"
        );
        assert_eq!(answer.headers["retry-after"], "1");
    }
}
