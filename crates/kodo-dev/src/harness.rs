//! Drives the real `kodo` binary from outside, for the demonstrations, the integration tests and the benchmark.
//!
//! A [`Service`] is a child process that can be killed for real; a [`Client`] talks to it over HTTP; a
//! [`Databases`] is a pair of databases of its own. Nothing here knows the inside of the service, and nobody tells the
//! failures of driving it apart: they are shown to a person.

mod client;
mod databases;
mod service;

pub use client::{Answer, Client};
pub use databases::Databases;
pub use service::{Service, ServiceOptions};
