//! Whether the process lives, and whether it can work.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use crate::answer;
use crate::app::App;
use crate::error::ApiError;
use crate::readiness::Checks;

/// `GET /healthz`: the process lives. Never waits for anything.
pub(crate) async fn healthz() -> Response {
    answer::json(StatusCode::OK, r#"{"ok":true}"#)
}

/// `GET /dbos-healthz`: the engine is launched. The body is that of the admin server of DBOS's own SDKs, whose tools
/// look for it.
pub(crate) async fn dbos_healthz(State(app): State<App>) -> Result<Response, ApiError> {
    if app.runs().is_launched() {
        Ok(answer::json(StatusCode::OK, r#"{"status":"healthy"}"#))
    } else {
        Err(ApiError::Unavailable("the engine is not launched".into()))
    }
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    checks: Checks,
}

/// `GET /readyz`: the process can do its work, and what fails where it cannot.
pub(crate) async fn readyz(State(app): State<App>) -> Result<Response, ApiError> {
    let checks = Checks::run(app.store(), app.runs(), app.readiness()).await;
    let ready = checks.pass();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(answer::json(
        status,
        serde_json::to_string(&Ready { ready, checks })?,
    ))
}
