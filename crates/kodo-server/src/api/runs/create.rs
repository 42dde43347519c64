//! `POST /intents/:id/run`: stores a run and hands it to the engine.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use kodo_contract::{IntentId, RunId, RunRequest, WorkflowId, decode};
use kodo_store::{Idempotency, Write};
use serde::Serialize;

use crate::api::idempotency;
use crate::api::params;
use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::Subject;
use crate::http::body;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted<'a> {
    run_id: &'a RunId,
    workflow_id: &'a WorkflowId,
}

/// What a run request is, for its fingerprint: the same body for another intent is another request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fingerprinted<'a> {
    intent_id: &'a IntentId,
    request: &'a RunRequest,
}

/// `POST /intents/:id/run`: answers as soon as the run is committed; from there it cannot be lost.
pub(crate) async fn handler(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    app.open_for_work()?;
    let (head, body) = request.into_parts();
    let intent_id = params::path_id(head.uri.path(), IntentId::parse)?;
    let key = idempotency::key(&head.headers)?;
    let bytes = body::read(body, app.config().body_timeout).await?;
    let intent_id = intent_id.ok_or(ApiError::IntentNotFound)?;
    app.in_time(accept(&app, intent_id, key, &head.headers, bytes))
        .await
}

async fn accept(
    app: &App,
    intent_id: IntentId,
    key: Option<&str>,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    // Before the body is judged: a client with a wrong id is told about the id, whatever it sent.
    if !app.store().intent_exists(&intent_id).await? {
        return Err(ApiError::IntentNotFound);
    }
    let request = parse_request(&bytes, headers)?;

    let run_id = RunId::generate();
    let workflow_id = run_id.workflow_id();
    let status = StatusCode::ACCEPTED;
    let answer = serde_json::to_string(&Accepted {
        run_id: &run_id,
        workflow_id: &workflow_id,
    })?;
    let fingerprint = match key {
        Some(_) => idempotency::fingerprint(&Fingerprinted {
            intent_id: &intent_id,
            request: &request,
        })?,
        None => String::new(),
    };
    let idempotency = key.map(|key| Idempotency {
        scope: "POST /intents/:id/run",
        key,
        fingerprint: &fingerprint,
        status: status.as_u16(),
        body: &answer,
    });
    app.runs().failpoint("accept:before");
    let write = app
        .store()
        .insert_run(
            &run_id,
            &intent_id,
            request.trace_id.as_deref(),
            idempotency.as_ref(),
        )
        .await?;
    let mut subject = Subject {
        intent: Some(intent_id),
        ..Subject::default()
    };
    if write == Write::Created {
        app.runs().failpoint("accept:committed");
        app.runs().accepted(&run_id);
        subject.run = Some(run_id);
    }
    app.runs().failpoint("accept:answer");
    idempotency::answer(write, status, answer, subject)
}

/// A body of no bytes means `{}`.
fn parse_request(bytes: &[u8], headers: &HeaderMap) -> Result<RunRequest, ApiError> {
    if bytes.is_empty() {
        return Ok(RunRequest::default());
    }
    let value = body::json(bytes, headers)?;
    Ok(decode(&value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_are_an_empty_request_and_blanks_are_no_json() {
        let none = HeaderMap::new();
        assert_eq!(parse_request(b"", &none).unwrap(), RunRequest::default());
        assert_eq!(
            parse_request(b" {} ", &none).unwrap(),
            RunRequest::default()
        );
        for broken in [&b" "[..], b"\n", b"{", b"{}{}", b"\xef\xbb\xbf{}"] {
            let error = parse_request(broken, &none).unwrap_err();
            assert_eq!(error.to_string(), "invalid json", "{broken:?}");
        }
        let error = parse_request(br#"{"traceId":1}"#, &none)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("invalid RunRequest: data/traceId "),
            "{error}"
        );
    }

    #[test]
    fn the_same_body_for_another_intent_is_another_request() {
        let request = RunRequest::default();
        let of = |intent_id: &IntentId| {
            let request = &request;
            idempotency::fingerprint(&Fingerprinted { intent_id, request }).unwrap()
        };
        let (one, other) = (IntentId::generate(), IntentId::generate());
        assert_eq!(of(&one), of(&one));
        assert_ne!(of(&one), of(&other));
    }
}
