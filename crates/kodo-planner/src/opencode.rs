//! The planner that asks a model through OpenCode: a real `opencode serve`, started here or attached to.
//!
//! One session a plan. OpenCode does not validate what a model answers and asks a failing model without end, so both
//! are ours: its answer goes through the same conversation as every other provider's, and our deadline aborts it.
//!
//! ```text
//! plan ── API ──► opencode serve ── gate ──► the model
//! ```
//!
//! An OpenCode that we start reaches the model through the [`gate`] alone. It never sees the provider's key, and its
//! requests pass for as long as the plan that they belong to is being made.

mod answer;
mod api;
mod gate;
mod launch;
mod link;
mod planner;
mod server;
mod session;

pub use launch::{GATE_PORT, OpenCodeLauncher, OpenCodeProcess, Start, Stream, TESTED_VERSION};
pub use link::OpenCodeUrl;
pub use planner::{OpenCodeConfig, OpenCodePlace, OpenCodePlanner, VersionRule};
