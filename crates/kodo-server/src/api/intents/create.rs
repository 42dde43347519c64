//! `POST /intents`: validates an intent at ingress, then stores it.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{Intent, IntentId, decode};
use kodo_store::Idempotency;
use serde::Serialize;

use crate::api::idempotency;
use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::Subject;
use crate::http::body;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    intent_id: &'a IntentId,
}

pub(crate) async fn handler(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    app.open_for_work()?;
    let (head, body) = request.into_parts();
    let key = idempotency::key(&head.headers)?;
    let bytes = body::read(body, app.config().body_timeout).await?;

    let value = body::json(&bytes, &head.headers)?;
    let intent: Intent = decode(&value)?;

    // The id is made before the insert: the stored answer of an idempotency key contains it.
    let id = IntentId::generate();
    let status = StatusCode::CREATED;
    let answer = serde_json::to_string(&Created { intent_id: &id })?;
    let fingerprint = match key {
        Some(_) => idempotency::fingerprint(&intent)?,
        None => String::new(),
    };
    let idempotency = key.map(|key| Idempotency {
        scope: "POST /intents",
        key,
        fingerprint: &fingerprint,
        status: status.as_u16(),
        body: &answer,
    });
    app.runs().failpoint("intent:before");
    let write = app
        .in_time(async {
            Ok(app
                .store()
                .insert_intent(&id, &intent, idempotency.as_ref())
                .await?)
        })
        .await?;
    let subject = Subject {
        intent: Some(id),
        ..Subject::default()
    };
    app.runs().failpoint("intent:answer");
    idempotency::answer(write, status, answer, subject)
}
