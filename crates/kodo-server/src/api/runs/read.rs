//! `GET /runs/:id`: a run, validated at egress.

use axum::http::StatusCode;
use axum::response::Response;

use crate::api::egress;
use crate::error::ApiError;
use crate::extract::params::{Id, RunKey};
use crate::extract::service::Migrated;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/runs/{id}", Access::Token, handler).answers(StatusCode::OK, "the run")
}

async fn handler(Migrated(app): Migrated, Id(key): Id<RunKey>) -> Result<Response, ApiError> {
    let id = key.run(&app).await?;
    let view = app.in_time(app.store().run_view(&id)).await?;
    egress::answer(&view.ok_or(ApiError::RunNotFound)?, id)
}
