//! `GET /healthz`: whether the process lives.

use axum::http::StatusCode;
use axum::response::Response;

use crate::http::answer;

/// Answers without waiting for anything.
pub(crate) async fn handler() -> Response {
    answer::json(StatusCode::OK, r#"{"ok":true}"#)
}
