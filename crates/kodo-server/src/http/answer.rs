//! JSON answers, and what they carry for the log line.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use kodo_contract::{IntentId, RunId, WorkflowId};
use serde::Serialize;

/// Why a request failed: for the log line only.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

/// The ids that a request was about: for the log line only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    pub(crate) intent: Option<IntentId>,
    pub(crate) run: Option<RunId>,
    pub(crate) workflow: Option<WorkflowId>,
}

macro_rules! subject {
    ($($field:ident: $id:ty),+) => {$(
        impl From<$id> for Subject {
            fn from(id: $id) -> Self {
                Self {
                    $field: Some(id),
                    ..Self::default()
                }
            }
        }
    )+};
}
subject!(intent: IntentId, run: RunId, workflow: WorkflowId);

/// An answer with a body that is JSON already.
pub(crate) fn json(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// The same, with the ids that the log line should name.
pub(crate) fn json_about(
    status: StatusCode,
    text: impl Into<Bytes>,
    subject: impl Into<Subject>,
) -> Response {
    let mut response = json(status, text);
    response.extensions_mut().insert(subject.into());
    response
}

/// An answer whose body is this value as JSON, with the ids that the log line should name.
pub(crate) fn of(
    status: StatusCode,
    value: &impl Serialize,
    subject: impl Into<Subject>,
) -> serde_json::Result<Response> {
    Ok(json_about(status, serde_json::to_string(value)?, subject))
}
