//! The artifact store on an S3 server that others made and that verifies every signature.
//!
//! Run by the task `test:s3`, which installs the server first and says where it is. Without it these tests fail: they are
//! no part of a run that does without.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "../../../kodo-store/tests/shared/conformance.rs"]
mod conformance;

#[path = "../it/large.rs"]
mod large;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/program.rs"]
mod program;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/scratch.rs"]
mod scratch;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/support.rs"]
mod support;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/test_databases.rs"]
mod test_databases;

mod runs;
mod server;
mod store;
