//! The rules of the repository, what is shared here, the planner against the scripted model, and the pages. None needs a
//! database.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod course;
mod live;
#[path = "../shared/model.rs"]
mod model;
mod opencode;
mod pages;
mod policy;
mod soak;
