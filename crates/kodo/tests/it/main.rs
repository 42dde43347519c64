//! The integration tests: the real binary, real Postgres, real signals. One binary, a module an area.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, dead_code)]

mod flow;
mod support;
