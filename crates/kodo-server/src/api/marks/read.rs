//! `GET /marks`: how often each effect of a crash demo is there.

use axum::http::StatusCode;
use axum::response::Response;

use crate::error::ApiError;
use crate::extract::params::WorkflowQuery;
use crate::extract::service::Migrated;
use crate::http::answer;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/marks", Access::Token, handler)
        .answers(StatusCode::OK, "how often each of the two effects is there")
}

async fn handler(
    Migrated(app): Migrated,
    WorkflowQuery(id): WorkflowQuery,
) -> Result<Response, ApiError> {
    let marks = app.in_time(app.store().marks(id.as_str())).await?;
    Ok(answer::of(StatusCode::OK, &marks, id)?)
}
