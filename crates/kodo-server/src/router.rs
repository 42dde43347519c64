//! The routes of both APIs, and the stack that every request passes.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::policy::{AccessPolicy, enforce};
use crate::app::App;
use crate::error::ApiError;
use crate::http::observe::observe;
use crate::{admin, api};

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

fn product_table() -> Routes {
    Routes::default()
        // Probes
        .get("/healthz", api::health::healthz::handler)
        .get("/readyz", api::health::readyz::handler)
        // Intents and their runs
        .post("/intents", api::intents::create::handler)
        .post("/intents/{id}/run", api::runs::create::handler)
        .get("/runs/{id}", api::runs::read::handler)
        .get("/runs/{id}/artifacts", api::artifacts::list::handler)
        .get("/artifacts/{sha256}", api::artifacts::read::handler)
        // The crash demo
        .post("/crashdemo", api::crashdemo::start::handler)
        .get("/marks", api::marks::read::handler)
}

fn admin_table() -> Routes {
    Routes::default()
        .get("/dbos-healthz", admin::dbos_healthz::handler)
        .get("/readyz", api::health::readyz::handler)
}

/// The product API. `GET` routes answer `HEAD` as well.
pub fn product_router(app: &App) -> Router {
    finish(product_table().router, app, &["/healthz", "/readyz"])
}

/// Every route of the product API.
#[must_use]
pub fn product_routes() -> Vec<Route> {
    product_table().listed
}

/// The admin API, for loopback only.
pub fn admin_router(app: &App) -> Router {
    finish(admin_table().router, app, &["/readyz"])
}

/// Every route of the admin API.
#[must_use]
pub fn admin_routes() -> Vec<Route> {
    admin_table().listed
}

/// The stack around the routes, innermost first: the last layer sees the request first.
///
/// Nothing here reads a body or sets a deadline: handlers do, since a client that sends slowly is not a database that
/// answers slowly.
fn finish(routes: Router<App>, app: &App, open: &'static [&'static str]) -> Router {
    let policy = Arc::new(AccessPolicy::new(app.config(), open));
    routes
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        // 3. Foreign origins and missing tokens, before a route gives itself away.
        .layer(from_fn_with_state(policy, enforce))
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
