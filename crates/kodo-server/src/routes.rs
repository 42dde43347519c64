//! The routes of both APIs, and the stack that every request passes.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::ApiError;
use crate::guard::{Gate, guard};
use crate::observe::observe;
use crate::{artifacts, crash_demo, health, intents, runs};

/// A route, as whoever checks all of them sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// `GET` (which answers `HEAD` as well) or `POST`.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: &'static str,
}

/// Routes under construction. There is no way to add one without its being listed.
#[derive(Default)]
struct Routes {
    router: Router<App>,
    listed: Vec<Route>,
}

impl Routes {
    fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, App>) -> Self {
        self.add("GET", path, get(handler))
    }

    fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, App>) -> Self {
        self.add("POST", path, post(handler))
    }

    fn add(mut self, method: &'static str, path: &'static str, handler: MethodRouter<App>) -> Self {
        self.listed.push(Route { method, path });
        self.router = self.router.route(path, handler);
        self
    }
}

fn product() -> Routes {
    Routes::default()
        // Probes
        .get("/healthz", health::healthz)
        .get("/readyz", health::readyz)
        // Intents and their runs
        .post("/intents", intents::create)
        .post("/intents/{id}/run", runs::create)
        .get("/runs/{id}", runs::read)
        .get("/runs/{id}/artifacts", artifacts::list)
        .get("/artifacts/{sha256}", artifacts::read)
        // The crash demo
        .post("/crashdemo", crash_demo::start)
        .get("/marks", crash_demo::marks)
}

fn admin() -> Routes {
    Routes::default()
        .get("/dbos-healthz", health::dbos_healthz)
        .get("/readyz", health::readyz)
}

/// The product API. `GET` routes answer `HEAD` as well.
pub fn product_router(app: &App) -> Router {
    finish(product().router, app, &["/healthz", "/readyz"])
}

/// Every route of the product API.
#[must_use]
pub fn product_routes() -> Vec<Route> {
    product().listed
}

/// The admin API, for loopback only.
pub fn admin_router(app: &App) -> Router {
    finish(admin().router, app, &["/readyz"])
}

/// Every route of the admin API.
#[must_use]
pub fn admin_routes() -> Vec<Route> {
    admin().listed
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
