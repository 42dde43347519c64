//! The planner `opencode` with the real OpenCode, in the real jail, against a scripted model over real HTTP.
//!
//! Run by the task `test:opencode`, which installs OpenCode first and says where it is. Without it these tests fail: they
//! are no part of a run that does without. A start takes seconds and half a gigabyte, so the tests of one process share
//! one, and run one after the other.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../../src/opencode/jailed.rs"]
mod jailed;

#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../../../kodo-dev/tests/shared/model.rs"]
mod model;

#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/support.rs"]
mod support;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/test_databases.rs"]
mod test_databases;

mod answers;
mod held;
mod processes;
mod service;
mod stage;
mod trouble;
