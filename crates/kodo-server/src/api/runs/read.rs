//! `GET /runs/:id`: a run, validated at egress.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::RunId;

use crate::api::egress;
use crate::error::ApiError;
use crate::extract::params::Id;
use crate::extract::service::Migrated;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/runs/{id}", Access::Token, handler).answers(StatusCode::OK, "the run")
}

async fn handler(Migrated(app): Migrated, Id(id): Id<RunId>) -> Result<Response, ApiError> {
    let view = app.in_time(app.store().run_view(&id)).await?;
    egress::answer(&view.ok_or(ApiError::RunNotFound)?, id)
}
