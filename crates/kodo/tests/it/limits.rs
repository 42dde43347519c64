//! How much is read: 1 MiB of body, 256 bytes of id.

use crate::api::{REQUEST_ID, normal, refusal, refused_post, rows};
use crate::raw::{Raw, RawAnswer, chunked, post_head, request};
use crate::support::{DEMO_INTENT, World, text};

const MIB: usize = 1 << 20;

const TOO_LARGE: &str = r#"413 {"error":"payload too large"}"#;

/// An intent but for its goal.
const AROUND: &str = r#"{"goal":"","inputs":{},"constraints":{}}"#;

/// An intent of exactly this many bytes.
fn intent_of(bytes: usize) -> String {
    let goal = "x".repeat(bytes - AROUND.len());
    format!(r#"{{"goal":"{goal}","inputs":{{}},"constraints":{{}}}}"#)
}

async fn post_chunked(world: &World, path: &str, body: &str) -> RawAnswer {
    let mut raw = Raw::connect(world.service.port).await;
    let id = format!("X-Request-Id: {REQUEST_ID}");
    let headers = ["Transfer-Encoding: chunked", id.as_str()];
    let bytes = chunked(body.as_bytes(), 60_000);
    raw.send(request("POST", path, &headers, &bytes)).await;
    raw.answer().await
}

#[tokio::test]
async fn a_body_of_one_mebibyte_is_stored_and_one_byte_more_refused() {
    let world = World::new("limits_body").await;
    let largest = intent_of(MIB);
    let by_length = world.intent(&largest).await;
    let answer = post_chunked(&world, "/intents", &largest).await;
    assert_eq!(normal(&answer.shown()), r#"201 {"intentId":"it_ID"}"#);
    let by_chunks = answer.json()["intentId"].as_str().unwrap().to_owned();
    for intent in [by_length, by_chunks] {
        let length: i32 = sqlx::query_scalar("SELECT length(goal) FROM app.intents WHERE id = $1")
            .bind(intent)
            .fetch_one(&world.app)
            .await
            .unwrap();
        assert_eq!(length as usize, MIB - AROUND.len());
    }

    let before = rows(&world).await;
    let intent = world.intent(DEMO_INTENT).await;
    let too_large = intent_of(MIB + 1);
    for path in [
        "/intents".to_owned(),
        format!("/intents/{intent}/run"),
        "/crashdemo?wf=x".to_owned(),
    ] {
        let refused = refused_post(&world, &path, too_large.clone()).await;
        assert_eq!(refused, TOO_LARGE);
        let answer = post_chunked(&world, &path, &too_large).await;
        assert_eq!(answer.shown(), TOO_LARGE);
        assert_eq!(answer.header("x-request-id"), Some(REQUEST_ID));
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(rows(&world).await, (before.0 + 1, 0, 0, 0));
}

#[tokio::test]
async fn an_announced_length_over_the_limit_is_refused_before_a_byte_is_read() {
    let world = World::new("limits_announced").await;
    for length in [MIB + 1, 1 << 40] {
        let mut raw = Raw::connect(world.service.port).await;
        raw.send(post_head("/intents", length)).await;
        assert_eq!(raw.answer().await.shown(), TOO_LARGE, "{length}");
        assert!(raw.is_closed().await);
    }
    // Who asks first is not told to go on.
    let mut raw = Raw::connect(world.service.port).await;
    let length = format!("Content-Length: {}", MIB + 1);
    let headers = ["Expect: 100-continue", length.as_str()];
    raw.send(request("POST", "/intents", &headers, b"")).await;
    assert_eq!(raw.answer().await.shown(), TOO_LARGE);

    let mut raw = Raw::connect(world.service.port).await;
    let length = format!("Content-Length: {}", DEMO_INTENT.len());
    let headers = ["Expect: 100-continue", length.as_str()];
    raw.send(request("POST", "/intents", &headers, b"")).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(DEMO_INTENT).await;
    assert_eq!(raw.answer().await.status, 201);
    assert_eq!(rows(&world).await, (1, 0, 0, 0));

    // Who sends on all the same still reads the answer: more than any socket buffer holds, so a reset would lose it.
    let mut raw = Raw::connect(world.service.port).await;
    raw.send(post_head("/intents", 8 * MIB)).await;
    raw.send(vec![b'x'; 8 * MIB]).await;
    let answer = raw.answer().await;
    assert_eq!(answer.shown(), TOO_LARGE);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_whose_framing_lies_writes_nothing() {
    let world = World::new("limits_broken").await;
    let before = rows(&world).await;
    let body = DEMO_INTENT.as_bytes();
    let te = "Transfer-Encoding: chunked";
    for (what, bytes) in [
        ("half a body", {
            let mut bytes = post_head("/intents", body.len() + 1);
            bytes.extend_from_slice(body);
            bytes
        }),
        (
            "no last chunk",
            request("POST", "/intents", &[te], b"2\r\n{}\r\n"),
        ),
        (
            "a chunk size that is no number",
            request("POST", "/intents", &[te], b"zz\r\n{}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk longer than it says",
            request("POST", "/intents", &[te], b"1\r\n{}\r\n0\r\n\r\n"),
        ),
    ] {
        let mut raw = Raw::connect(world.service.port).await;
        raw.send(bytes).await;
        raw.half_close().await;
        let answer = raw.answer().await;
        assert_eq!(
            answer.shown(),
            r#"400 {"error":"invalid request body"}"#,
            "{what}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        assert!(raw.is_closed().await, "{what}");
    }
    // What is no HTTP at all never reaches a route.
    for headers in [
        &["Content-Length: 2", "Content-Length: 3"][..],
        &["Content-Length: -1"],
        &["Content-Length: 99999999999999999999999"],
        &["Transfer-Encoding: gzip"],
    ] {
        let mut raw = Raw::connect(world.service.port).await;
        raw.send(request("POST", "/intents", headers, b"{}")).await;
        assert_eq!(raw.answer().await.status, 400, "{headers:?}");
        assert!(raw.is_closed().await, "{headers:?}");
    }
    // A length shorter than the body: the rest is no request.
    let mut raw = Raw::connect(world.service.port).await;
    let mut bytes = post_head("/intents", 2);
    bytes.extend_from_slice(b"{}xx\r\n\r\n");
    raw.send(bytes).await;
    assert_eq!(raw.answer().await.status, 400);
    assert_eq!(raw.answer().await.status, 400);
    assert!(raw.is_closed().await);
    assert_eq!(rows(&world).await, before);
}

#[tokio::test]
async fn ids_over_256_bytes_are_refused_and_shorter_ones_looked_up() {
    let world = World::new("limits_ids").await;
    let id = |bytes: usize| "x".repeat(bytes);
    let too_long = r#"400 {"error":"id must be at most 256 bytes"}"#;
    for long in [id(257), "%78".repeat(257), "%C3%A9".repeat(129), id(60_000)] {
        let view = refusal(&world, "GET", &format!("/runs/{long}"), &[], "").await;
        assert_eq!(view, too_long);
        let run = refusal(&world, "POST", &format!("/intents/{long}/run"), &[], "{bad").await;
        assert_eq!(run, too_long);
        for (method, path) in [("POST", "/crashdemo"), ("GET", "/marks")] {
            let demo = refusal(&world, method, &format!("{path}?wf={long}"), &[], "").await;
            assert_eq!(demo, r#"400 {"error":"wf must be at most 256 bytes"}"#);
        }
    }
    let longest = [id(256), "%78".repeat(256), "%C3%A9".repeat(128)];
    for longest in &longest {
        let view = refusal(&world, "GET", &format!("/runs/{longest}"), &[], "").await;
        assert_eq!(view, r#"404 {"error":"run not found"}"#);
    }
    for longest in &longest {
        let demo = format!("/crashdemo?wf={longest}");
        let accepted = world.client.post(&demo, "").await.unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        assert_eq!(text(&accepted, "workflowId").len(), 256);
    }
}
