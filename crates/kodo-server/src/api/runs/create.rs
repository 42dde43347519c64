//! `POST /intents/:id/run`: stores a run and hands it to the engine.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{IntentId, RunId, RunRequest, WorkflowId};
use kodo_engine::failpoint;
use kodo_store::Write;
use serde::Serialize;

use crate::app::App;
use crate::error::ApiError;
use crate::extract::body::Body;
use crate::extract::idempotency::IdempotencyKey;
use crate::extract::params::Id;
use crate::extract::service::Accepting;
use crate::http::answer::Subject;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::post("/intents/{id}/run", Access::Token, handler)
        .answers(StatusCode::ACCEPTED, "the run is stored")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted<'a> {
    run_id: &'a RunId,
    workflow_id: &'a WorkflowId,
}

/// All that makes a run request what it is, for its fingerprint: the same body for another intent is another request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fingerprinted<'a> {
    intent_id: &'a IntentId,
    request: &'a RunRequest,
}

/// Answers as soon as the run is committed. From then on the run cannot be lost.
async fn handler(
    Accepting(app): Accepting,
    intent: Option<Id<IntentId>>,
    key: IdempotencyKey,
    body: Body<RunRequest>,
) -> Result<Response, ApiError> {
    let Id(intent_id) = intent.ok_or(ApiError::IntentNotFound)?;
    app.in_time(accept(&app, intent_id, key, body)).await
}

async fn accept(
    app: &App,
    intent_id: IntentId,
    key: IdempotencyKey,
    body: Body<RunRequest>,
) -> Result<Response, ApiError> {
    let request = match body.validate_or_default() {
        Ok(request) => request,
        // A wrong id is answered 404, whatever the body is.
        Err(_) if !app.store().intent_exists(&intent_id).await? => {
            return Err(ApiError::IntentNotFound);
        }
        Err(error) => return Err(error),
    };

    let run_id = RunId::generate();
    let answer = key.prepare(
        "POST /intents/:id/run",
        &Fingerprinted {
            intent_id: &intent_id,
            request: &request,
        },
        StatusCode::ACCEPTED,
        &Accepted {
            run_id: &run_id,
            workflow_id: &run_id.workflow_id(),
        },
    )?;
    failpoint("accept:before");
    let write = app
        .store()
        .insert_run(
            &run_id,
            &intent_id,
            request.trace_id.as_deref(),
            answer.stored().as_ref(),
        )
        .await?
        .ok_or(ApiError::IntentNotFound)?;
    let mut subject = Subject::from(intent_id);
    if write == Write::Created {
        failpoint("accept:committed");
        app.engine().accepted(&run_id);
        subject.run = Some(run_id);
    }
    failpoint("accept:answer");
    answer.answer(write, subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::idempotency::fingerprint;

    #[test]
    fn the_same_body_for_another_intent_is_another_request() {
        let request = RunRequest::default();
        let of = |intent_id: &IntentId| {
            let request = &request;
            fingerprint(&Fingerprinted { intent_id, request }).unwrap()
        };
        let (one, other) = (IntentId::generate(), IntentId::generate());
        assert_eq!(of(&one), of(&one));
        assert_ne!(of(&one), of(&other));
    }
}
