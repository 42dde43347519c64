//! Tests of what is shared here, and of the planner against the scripted model. None needs a database.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod course;
mod live;
mod opencode;
