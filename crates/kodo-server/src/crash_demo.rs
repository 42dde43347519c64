//! `POST /crashdemo` and `GET /marks`: a durable workflow to kill, and how often each of its effects is there.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::WorkflowId;
use serde::Serialize;

use crate::answer::{self, Subject};
use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::params;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    accepted: bool,
    workflow_id: &'a WorkflowId,
}

pub(crate) async fn start(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
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

pub(crate) async fn marks(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    app.open_for_reads()?;
    let id = params::workflow_id(request.uri().query())?;
    let marks = app
        .in_time(async { Ok(app.store().marks(id.as_str()).await?) })
        .await?;
    let answer = serde_json::to_string(&marks)?;
    Ok(answer::json_about(StatusCode::OK, answer, about(id)))
}

fn about(workflow: WorkflowId) -> Subject {
    Subject {
        workflow: Some(workflow),
        ..Subject::default()
    }
}
