//! The routes of both APIs, and the stack that every request passes.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::ApiError;
use crate::guard::{Gate, guard};
use crate::observe::observe;
use crate::{crash_demo, health, intents, runs};

/// The product API. `GET` routes answer `HEAD` as well.
pub fn product_router(app: &App) -> Router {
    let routes = Router::new()
        // Probes
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        // Intents and their runs
        .route("/intents", post(intents::create))
        .route("/intents/{id}/run", post(runs::create))
        .route("/runs/{id}", get(runs::read))
        // The crash demo
        .route("/crashdemo", post(crash_demo::start))
        .route("/marks", get(crash_demo::marks));
    finish(routes, app, &["/healthz", "/readyz"])
}

/// The admin API, for loopback only.
pub fn admin_router(app: &App) -> Router {
    let routes = Router::new()
        .route("/dbos-healthz", get(health::dbos_healthz))
        .route("/readyz", get(health::readyz));
    finish(routes, app, &["/readyz"])
}

/// The stack around the routes, innermost first: the last layer sees the request first.
///
/// Nothing here reads a body or sets a deadline: handlers do, since a client that sends slowly is not a database that
/// answers slowly.
fn finish(routes: Router<App>, app: &App, open: &'static [&'static str]) -> Router {
    let gate = Arc::new(Gate::new(app.config(), open));
    routes
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        // 3. Foreign origins and missing tokens, before a route gives itself away.
        .layer(from_fn_with_state(gate, guard))
        // 2. A panic is an answer, and an answer has an id and a log line.
        .layer(CatchPanicLayer::custom(panicked))
        // 1. The request id and the log line.
        .layer(from_fn(observe))
        .with_state(app.clone())
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("of no text");
    ApiError::Internal(format!("panic: {text}")).into_response()
}
