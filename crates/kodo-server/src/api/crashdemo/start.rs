//! `POST /crashdemo`: starts a durable workflow that is there to be killed.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::WorkflowId;
use kodo_engine::failpoint;
use serde::Serialize;

use crate::error::ApiError;
use crate::extract::body::AnyBody;
use crate::extract::params::WorkflowQuery;
use crate::extract::service::Launched;
use crate::http::answer;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::post("/crashdemo", Access::Token, handler)
        .answers(
            StatusCode::ACCEPTED,
            "the workflow is started, or was before",
        )
        .refuses([ApiError::WorkflowIdTaken])
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    accepted: bool,
    workflow_id: &'a WorkflowId,
}

async fn handler(
    Launched(app): Launched,
    WorkflowQuery(id): WorkflowQuery,
    _: AnyBody,
) -> Result<Response, ApiError> {
    failpoint("demo:before");
    app.in_time(app.engine().start_crash_demo(&id)).await?;
    failpoint("demo:answer");
    let started = Started {
        accepted: true,
        workflow_id: &id,
    };
    let answer = serde_json::to_string(&started)?;
    Ok(answer::json_about(StatusCode::ACCEPTED, answer, id))
}
