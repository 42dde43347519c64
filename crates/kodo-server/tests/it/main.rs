//! Tests of the server without a database: routes by calling the router, connections over real sockets.
//!
//! What needs rows is tested with the binary, in `crates/kodo/tests/it`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test is a failed test; clippy.toml says so, but for `#[test]` functions only"
)]

mod availability;
mod connections;
mod drain;
mod fake_database;
mod raw_requests;
mod refusals;
mod routes;
mod support;
