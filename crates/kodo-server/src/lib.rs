//! HTTP of Sisu Kodo: the product API and the admin API.
//!
//! A request passes, from the outside in: [`serve()`] (connections, drain), the middleware stack that is listed in
//! `routes.rs` (request id and log line, panics, who may ask), and one handler. Handlers return `ApiError` for
//! whatever went wrong; `error.rs` is the only place that knows what a client is told about it.
//!
//! Both ports are served before the database is reachable and before the engine is launched. Until [`Readiness`] says
//! that the schema is there, whatever needs the database answers 503, and `/healthz` answers 200.

mod answer;
mod app;
mod artifacts;
mod body;
mod config;
mod crash_demo;
mod engine;
mod error;
mod guard;
mod health;
mod idempotency;
mod intents;
mod linger;
mod observe;
mod params;
mod range;
mod readiness;
mod routes;
mod runs;
mod serve;
#[cfg(test)]
mod testing;

pub use app::App;
pub use body::MAX_BODY_BYTES;
pub use config::{ApiToken, ServerConfig, origins_of};
pub use engine::{CrashDemoError, Runs};
pub use readiness::Readiness;
pub use routes::{Route, admin_router, admin_routes, product_router, product_routes};
pub use serve::{Shutdown, serve};
