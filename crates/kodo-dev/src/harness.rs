//! Drives the real `kodo` binary from outside, for the demonstrations, the integration tests and the benchmark.
//!
//! A [`Service`] is a child process that can be killed for real; a [`Client`] talks to it over HTTP; a
//! [`Databases`] is a pair of databases of its own that goes when it is dropped. What a service shows and stores becomes
//! comparable by a [`Normaliser`] and [`dump()`], and is compared with [`Goldens`]. Nothing here knows the inside of the
//! service.

mod client;
mod databases;
mod dump;
mod error;
mod golden;
mod normalise;
mod service;
mod template;

pub use client::{Answer, Client};
pub use databases::Databases;
pub use dump::{Dump, Rules, Volatile, dump};
pub use error::HarnessError;
pub use golden::{GoldenError, Goldens, Mode, diff};
pub use normalise::{Normaliser, laid_out, without_numbers};
pub use service::{Service, ServiceOptions};
pub use template::TestDatabases;
