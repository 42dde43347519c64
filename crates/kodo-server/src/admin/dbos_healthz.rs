//! `GET /dbos-healthz`: whether the engine is launched.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::app::App;
use crate::error::ApiError;
use crate::http::answer;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/dbos-healthz", Access::Token, handler)
        .answers(StatusCode::OK, "the engine is launched")
        .refuses([ApiError::Unavailable(String::new())])
}

/// The body is that of the admin server of DBOS's own SDKs, whose tools look for it.
async fn handler(State(app): State<App>) -> Result<Response, ApiError> {
    if app.engine().is_launched() {
        Ok(answer::json(StatusCode::OK, r#"{"status":"healthy"}"#))
    } else {
        Err(ApiError::Unavailable("the engine is not launched".into()))
    }
}
