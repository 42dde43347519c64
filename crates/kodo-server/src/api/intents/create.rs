//! `POST /intents`: validates an intent at ingress, then stores it.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{Intent, IntentId};
use kodo_engine::failpoint;
use serde::Serialize;

use crate::error::ApiError;
use crate::extract::body::Body;
use crate::extract::idempotency::IdempotencyKey;
use crate::extract::service::Accepting;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::post("/intents", Access::Token, handler)
        .answers(StatusCode::CREATED, "the intent is stored")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    intent_id: &'a IntentId,
}

async fn handler(
    Accepting(app): Accepting,
    key: IdempotencyKey,
    body: Body<Intent>,
) -> Result<Response, ApiError> {
    let intent = body.validate()?;
    // The id is made before the insert: the stored answer of an idempotency key contains it.
    let id = IntentId::generate();
    let created = Created { intent_id: &id };
    let answer = key.prepare("POST /intents", &intent, StatusCode::CREATED, &created)?;
    failpoint("intent:before");
    let stored = answer.stored();
    let insert = app.store().insert_intent(&id, &intent, stored.as_ref());
    let write = app.in_time(insert).await?;
    failpoint("intent:answer");
    answer.answer(write, id)
}
