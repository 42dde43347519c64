//! The planner that asks a model through OpenCode: an `opencode serve` that is started here, or one at a URL.
//!
//! Each plan has a session of its own. OpenCode neither validates a model's answer nor stops asking a failing model, so
//! both are done here: the answer goes through the same conversation as every other provider's, and the deadline aborts
//! the session.
//!
//! ```text
//! plan ── API ──► opencode serve ── model proxy ──► the model
//! ```
//!
//! An OpenCode that we start reaches the model through the [`model_proxy`] alone. It never has the provider's key, and
//! its requests are forwarded only while the plan that they belong to is being made.

mod answer;
mod api;
mod child;
mod config;
mod launch;
mod link;
mod model_proxy;
mod planner;
mod program;
mod running;
mod server;
mod session;
mod unjailed;

pub use config::{OpenCodeConfig, OpenCodePlace};
pub use launch::{MODEL_PROXY_PORT, OpenCodeLauncher, OpenCodeProcess, Start, Stream};
pub use planner::OpenCodePlanner;
pub use program::{OpenCodeMissing, find_opencode};
pub use unjailed::UnjailedOpenCode;
