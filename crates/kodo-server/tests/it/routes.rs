//! The answers of routes that need no row.

use axum::Router;
use kodo_server::{ApiToken, admin_router, product_router};

use crate::support::{ask, booted, config};

fn product() -> Router {
    product_router(&booted(config()).app)
}

#[tokio::test]
async fn an_unknown_path_is_a_404_on_either_port() {
    for path in [
        "/",
        "/nope",
        "/intents/",
        "/healthz/",
        "//healthz",
        "/run",
        "/runs/",
        "/runs/a/b",
        "/intent/a",
        "/HEALTHZ",
    ] {
        for method in ["GET", "POST", "HEAD", "OPTIONS", "BREW"] {
            let answer = ask(&product(), &format!("{method} {path}"), &[], "").await;
            assert_eq!(answer.status, 404, "{method} {path}");
            assert_eq!(answer.headers["content-type"], "application/json");
            assert!(answer.headers.contains_key("x-request-id"));
            let expected = if method == "HEAD" {
                ""
            } else {
                r#"{"error":"not found"}"#
            };
            assert_eq!(answer.body, expected, "{method} {path}");
        }
    }
    let admin = admin_router(&booted(config()).app);
    assert_eq!(
        ask(&admin, "GET /healthz", &[], "").await.body,
        r#"{"error":"not found"}"#
    );
}

#[tokio::test]
async fn a_wrong_method_is_a_405_that_says_which_are_right() {
    for (request, allow) in [
        ("POST /healthz", "GET,HEAD"),
        ("DELETE /readyz", "GET,HEAD"),
        ("PUT /runs/x", "GET,HEAD"),
        ("OPTIONS /marks", "GET,HEAD"),
        ("GET /intents/x/run", "POST"),
        ("HEAD /intents/x/run", "POST"),
        ("BREW /intents/x/run", "POST"),
        ("GET /crashdemo?wf=x", "POST"),
    ] {
        let answer = ask(&product(), request, &[], "").await;
        assert_eq!(answer.status, 405, "{request}");
        assert_eq!(answer.headers["allow"], allow, "{request}");
        assert!(answer.headers.contains_key("x-request-id"), "{request}");
        if !request.starts_with("HEAD") {
            assert_eq!(
                answer.body, r#"{"error":"method not allowed"}"#,
                "{request}"
            );
        }
    }
    let admin = admin_router(&booted(config()).app);
    assert_eq!(
        ask(&admin, "POST /dbos-healthz", &[], "").await.headers["allow"],
        "GET,HEAD"
    );
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let get = ask(&product(), "GET /healthz", &[], "").await;
    let head = ask(&product(), "HEAD /healthz", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.headers["content-length"], get.body.len().to_string());
    assert_eq!(head.headers["content-type"], get.headers["content-type"]);
}

#[tokio::test]
async fn an_intent_is_judged_before_a_database_is_needed() {
    for body in [
        "",
        " ",
        "{",
        "{}{}",
        "\u{feff}{}",
        "NaN",
        r#"{"goal":"\ud800"}"#,
    ] {
        let answer = ask(&product(), "POST /intents", &[], body).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, r#"{"error":"invalid json"}"#),
            "{body:?}"
        );
    }
    let answer = ask(
        &product(),
        "POST /intents",
        &[("content-type", "text/plain")],
        r#"{"goal":""}"#,
    )
    .await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.starts_with(
            r#"{"error":"invalid Intent: data must have required property 'inputs'; data must have required property 'constraints'; data/goal must NOT have fewer than 1 characters","details":[{"instancePath":"","#
        ),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn ids_that_cannot_exist_are_not_found_and_long_ones_are_refused() {
    // Every other text may be what a client of the engine called a fork.
    for id in ["%00", "%ff"] {
        let answer = ask(&product(), &format!("GET /runs/{id}"), &[], "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, r#"{"error":"run not found"}"#),
            "{id}"
        );
    }
    for id in ["x", "%00", "%ff", "%zz", "it_0"] {
        let answer = ask(
            &product(),
            &format!("POST /intents/{id}/run"),
            &[],
            "{not json",
        )
        .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, r#"{"error":"intent not found"}"#),
            "{id}"
        );
    }
    let long = "x".repeat(257);
    for request in [
        format!("GET /runs/{long}"),
        format!("POST /intents/{long}/run"),
    ] {
        let answer = ask(&product(), &request, &[], "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, r#"{"error":"id must be at most 256 bytes"}"#)
        );
    }
}

#[tokio::test]
async fn the_crash_demo_is_accepted_under_the_id_that_was_asked_for() {
    let fixture = booted(config());
    let router = product_router(&fixture.app);
    for _ in 0..2 {
        let answer = ask(&router, "POST /crashdemo?wf=a%22b", &[], "{\"any\":1}").await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.body, r#"{"accepted":true,"workflowId":"a\"b"}"#);
    }
    assert_eq!(*fixture.demos.started.lock().unwrap(), ["a\"b", "a\"b"]);
    for request in [
        "POST /crashdemo",
        "POST /crashdemo?wf=%20",
        "GET /marks",
        "GET /marks?wf=",
    ] {
        let answer = ask(&router, request, &[], "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, r#"{"error":"wf query param required"}"#),
            "{request}"
        );
    }
    fixture.engine.set_launched(None);
    assert_eq!(
        ask(&router, "POST /crashdemo?wf=x", &[], "").await.status,
        503
    );
}

#[tokio::test]
async fn a_failure_of_the_engine_is_told_without_its_reason() {
    for (wf, status, body) in [
        ("unavailable", 503, r#"{"error":"unavailable"}"#),
        (
            "taken",
            409,
            r#"{"error":"workflow id belongs to another workflow"}"#,
        ),
        ("refused", 500, r#"{"error":"internal error"}"#),
        ("panic", 500, r#"{"error":"internal error"}"#),
        ("hang", 503, r#"{"error":"unavailable"}"#),
    ] {
        let sent = [("x-request-id", "mine")];
        let answer = ask(&product(), &format!("POST /crashdemo?wf={wf}"), &sent, "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{wf}"
        );
        assert_eq!(answer.headers["x-request-id"], "mine", "{wf}");
        assert_eq!(answer.headers["content-type"], "application/json", "{wf}");
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused_on_every_route_and_method() {
    for request in [
        "GET /healthz",
        "POST /intents",
        "OPTIONS /intents",
        "GET /nope",
        "DELETE /marks",
    ] {
        let answer = ask(
            &product(),
            request,
            &[("origin", "https://evil.example")],
            "",
        )
        .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (403, r#"{"error":"forbidden origin"}"#),
            "{request}"
        );
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let ours = [("origin", "http://localhost:3001")];
    assert_eq!(ask(&product(), "GET /healthz", &ours, "").await.status, 200);
}

#[tokio::test]
async fn with_a_token_set_only_probes_answer_without_it() {
    let mut config = config();
    config.api_token = ApiToken::new("s3cret");
    let app = booted(config).app;
    let (product, admin) = (product_router(&app), admin_router(&app));
    assert_eq!(ask(&product, "GET /healthz", &[], "").await.status, 200);
    assert_eq!(ask(&product, "HEAD /readyz", &[], "").await.status, 503);
    assert_eq!(ask(&admin, "GET /readyz", &[], "").await.status, 503);
    for (router, request) in [
        (&product, "GET /runs/x"),
        (&product, "POST /intents"),
        (&product, "DELETE /intents"),
        (&product, "GET /nope"),
        (&admin, "GET /dbos-healthz"),
    ] {
        let answer = ask(router, request, &[], "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (401, r#"{"error":"unauthorized"}"#),
            "{request}"
        );
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let sent = [("authorization", "bearer s3cret")];
        assert_ne!(
            ask(router, request, &sent, "").await.status,
            401,
            "{request}"
        );
    }
}
