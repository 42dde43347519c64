//! `GET /healthz`: whether the process lives.

use axum::http::StatusCode;
use axum::response::Response;

use crate::http::answer;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/healthz", Access::Public, handler).answers(StatusCode::OK, "the process lives")
}

/// Waits for nothing.
async fn handler() -> Response {
    answer::json(StatusCode::OK, r#"{"ok":true}"#)
}
