//! The routers of both APIs, made from their operations, and the middleware that every request passes.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::policy::{AccessPolicy, enforce};
use crate::app::App;
use crate::error::ApiError;
use crate::http::observe::observe;
use crate::route::{Operation, Route};
use crate::{admin, api};

/// The product API.
pub fn product_router(app: &App) -> Router {
    build(api::operations(), app)
}

/// Every route of the product API.
#[must_use]
pub fn product_routes() -> Vec<Route> {
    routes(&api::operations())
}

/// The admin API, for loopback only.
pub fn admin_router(app: &App) -> Router {
    build(admin::operations(), app)
}

/// Every route of the admin API.
#[must_use]
pub fn admin_routes() -> Vec<Route> {
    routes(&admin::operations())
}

fn routes(operations: &[Operation]) -> Vec<Route> {
    operations
        .iter()
        .map(|operation| operation.route.clone())
        .collect()
}

/// The operations and their middleware, innermost first: the last layer sees the request first.
///
/// No layer reads a body or sets a deadline. Handlers do, because a slow client (408) is told apart from a slow
/// database (503).
fn build(operations: Vec<Operation>, app: &App) -> Router {
    let policy = Arc::new(AccessPolicy::new(app.config(), routes(&operations)));
    operations
        .into_iter()
        .fold(Router::new(), |router, operation| {
            router.route(operation.route.path, operation.handler)
        })
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        // 3. Malformed hosts, foreign origins and missing tokens, before the answer shows which routes there are.
        .layer(from_fn_with_state(policy, enforce))
        // 2. A panic becomes a 500, which has an id and a log line like every answer.
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
        .unwrap_or("without a message");
    ApiError::Internal(format!("panic: {text}")).into_response()
}
