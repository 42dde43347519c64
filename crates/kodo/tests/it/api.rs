//! What the tests of the HTTP contract share: requests that must be refused, and answers without their ids.

use hyper::Method;
use hyper::body::Bytes;
use kodo_dev::harness::{Answer, Client, ServiceOptions};

use crate::support::World;

/// The id that [`refusal`] sends along; every answer has to carry it.
pub const REQUEST_ID: &str = "contract-test:1";

/// Counts of `app.intents`, `app.runs`, `app.idempotency_keys` and `app.marks`.
pub async fn rows(world: &World) -> (i64, i64, i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM app.intents), (SELECT count(*) FROM app.runs),
                (SELECT count(*) FROM app.idempotency_keys), (SELECT count(*) FROM app.marks)",
    )
    .fetch_one(&world.app)
    .await
    .expect("counts")
}

/// Sends a request that must be refused: checks what holds for every refusal, also that no row was written,
/// and returns status and body.
pub async fn refusal(
    world: &World,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> String {
    let before = rows(world).await;
    let mut sent = vec![("x-request-id", REQUEST_ID)];
    sent.extend_from_slice(headers);
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let answer = world
        .client
        .send(method, path, &sent, body)
        .await
        .expect("an answer");
    assert!(answer.status >= 400, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-request-id"), Some(REQUEST_ID), "{path}");
    assert_eq!(rows(world).await, before, "{path} was refused and wrote");
    shown(&answer)
}

/// A refused `POST`.
pub async fn refused_post(world: &World, path: &str, body: impl Into<Bytes>) -> String {
    refusal(world, "POST", path, &[], body).await
}

/// Status and body of an answer, without ids.
pub fn shown(answer: &Answer) -> String {
    format!("{} {}", answer.status, normal(&answer.text()))
}

/// `POST` with an idempotency key.
pub async fn keyed(client: &Client, path: &str, key: &str, body: &str) -> Answer {
    client
        .send(
            Method::POST,
            path,
            &[("idempotency-key", key)],
            body.to_owned(),
        )
        .await
        .expect("an answer")
}

/// `GET` that succeeds.
pub async fn got(world: &World, path: &str) -> Answer {
    let answer = world.client.get(path).await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

/// A text with every id of an intent or a run replaced by its prefix and `ID`.
pub fn normal(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((at, prefix)) = ["it_", "run_"]
        .iter()
        .filter_map(|prefix| rest.find(prefix).map(|at| (at, *prefix)))
        .min()
    {
        let (before, from) = rest.split_at(at + prefix.len());
        out.push_str(before);
        rest = from;
        if let Some(hex) = from.get(..32)
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            out.push_str("ID");
            rest = &from[32..];
        }
    }
    out + rest
}

/// Whether a text is an id as the contract has it: prefix, then a UUIDv7 as 32 lower-case hex digits.
pub fn is_id(text: &str, prefix: &str) -> bool {
    let Some(hex) = text.strip_prefix(prefix) else {
        return false;
    };
    hex.len() == 32
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && hex.as_bytes()[12] == b'7'
        && matches!(hex.as_bytes()[16], b'8' | b'9' | b'a' | b'b')
}

/// An id of the right shape that nobody ever got.
pub const NO_INTENT: &str = "it_00000000000070008000000000000000";

/// The same of a run.
pub const NO_RUN: &str = "run_00000000000070008000000000000000";

/// The service with the committed planner fixtures, as it finds them when it is started in the repository.
pub fn committed_fixtures(options: ServiceOptions) -> ServiceOptions {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/oc");
    options
        .env("OC_FIXTURES_DIR", folder)
        .env("TEST_SEED", 424_242)
}
