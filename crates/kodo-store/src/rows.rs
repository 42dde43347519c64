//! The rows of schema `app`: one module for each aggregate, with every statement that reads or writes it.

mod artifacts;
mod claims;
mod forks;
pub(crate) mod group;
mod idempotency;
mod intents;
mod json;
mod marks;
mod outcomes;
mod runs;
pub(crate) mod steps;
mod workers;

pub(crate) use json::{content_hash, stored_json};

pub use artifacts::{ArtifactRow, Found, NewArtifact};
pub use claims::{Claim, ClaimedRun, OpenClaim};
pub use forks::NewFork;
pub use idempotency::{Idempotency, Write};
pub use marks::{Mark, Marks};
pub use outcomes::Settlement;
pub use runs::{RunToPlan, StoredRun, UnfinishedRun};
pub use steps::{NewStep, Recorded};
