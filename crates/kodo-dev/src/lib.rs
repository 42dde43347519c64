//! What the tests, the benchmark and the verbs of `kodo-dev` share. Nothing here is part of the product.
//!
//! [`harness`] drives the real `kodo` binary from outside, [`course`] runs the commands of `docs/course.md`, [`scripted_model`]
//! answers like a model, by script, and [`ports`] finds free ports.

pub mod course;
pub mod harness;
pub mod ports;
pub mod scripted_model;
