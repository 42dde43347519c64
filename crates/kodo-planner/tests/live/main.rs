//! The live planner against a scripted provider, over real HTTP.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod answers;
mod forms;
mod overhead;
mod record;
mod refused;
mod support;
mod trouble;
