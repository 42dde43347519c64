//! `POST /crashdemo`: starts a durable workflow that is there to be killed.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::WorkflowId;
use serde::Serialize;

use crate::api::params;
use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::{self, Subject};
use crate::http::body;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    accepted: bool,
    workflow_id: &'a WorkflowId,
}

pub(crate) async fn handler(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    app.open_for_work()?;
    if !app.runs().is_launched() {
        return Err(ApiError::Unavailable("the engine is not launched".into()));
    }
    let (head, body) = request.into_parts();
    let id = params::workflow_id(head.uri.query())?;
    // No body is wanted. One that was sent is read all the same, within the limits of every body, so that the
    // connection stays usable.
    body::read(body, app.config().body_timeout).await?;
    app.runs().failpoint("demo:before");
    app.in_time(async { Ok(app.runs().start_crash_demo(&id).await?) })
        .await?;
    app.runs().failpoint("demo:answer");
    let answer = serde_json::to_string(&Started {
        accepted: true,
        workflow_id: &id,
    })?;
    Ok(answer::json_about(StatusCode::ACCEPTED, answer, about(id)))
}

fn about(workflow: WorkflowId) -> Subject {
    Subject {
        workflow: Some(workflow),
        ..Subject::default()
    }
}
