//! HTTP of Sisu Kodo: the product API and the admin API.
//!
//! A request passes, from the outside in: [`serve()`] (connections, drain), the middleware stack that is listed in
//! `router.rs` (request id and log line, panics, access policy), and one handler of `api/` or `admin/`. Handlers return
//! `ApiError`; `error.rs` alone decides what the client is told.
//!
//! Both ports are served before the database is reachable and before the engine is launched. Until [`Readiness`] says
//! that the schema is there, the routes that need the database answer 503; `/healthz` answers 200.

mod access;
mod admin;
mod api;
mod app;
mod config;
mod error;
mod extract;
mod http;
mod readiness;
mod route;
mod router;
#[cfg(test)]
mod testing;

pub use access::origins::origins_of;
pub use access::token::ApiToken;
pub use app::App;
pub use config::ServerConfig;
pub use http::limits::MAX_BODY_BYTES;
pub use http::listen::{Shutdown, serve};
pub use readiness::Readiness;
pub use route::{Access, Answer, Input, Route};
pub use router::{admin_router, admin_routes, product_router, product_routes};
