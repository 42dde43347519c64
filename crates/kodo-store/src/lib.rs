//! What the product keeps: rows in schema `app` of the product database, and content by its hash in a folder or an
//! S3-compatible store.
//!
//! `rows` holds one module for each aggregate. It is the only place with product SQL: every effect of a run is written
//! under its natural key (`run_id, step_id`) in one statement, so that recording it a second time changes nothing.
//! [`content`] holds what is too large for a row, and the lock that keeps content from being deleted while a row that
//! names it is on its way.

pub mod content;

mod ailing;
mod binding;
mod blockers;
mod diagnosis;
mod error;
mod invariants;
mod journal;
mod mark;
mod migrations;
mod pool;
mod requirements;
mod rows;
mod schema;
mod schema_error;
mod session;
mod ssl;
mod trouble;

pub use binding::{Binding, TurnToBind};
pub use blockers::{Blocker, blockers_in, waits_for, waits_in};
pub use diagnosis::ServerFacts;
pub use error::StoreError;
pub use invariants::{Evidence, INVARIANTS, Invariant, Load, Offender};
pub use journal::{Group, Journal};
pub use mark::MarkError;
pub use migrations::{MigrationState, known_migrations};
pub use pool::{DatabaseConfig, Store, address, close, socket};
pub use requirements::read_only;
pub use rows::{
    ArtifactRow, Claim, ClaimedRun, Found, Idempotency, Mark, Marks, NewArtifact, NewFork, NewStep,
    OpenClaim, Recorded, RunToPlan, Settlement, StoredRun, UnfinishedRun, Write,
};
pub use schema_error::SchemaError;
pub use session::{connect, pool};
pub use ssl::{SslMode, UnknownSslMode};
pub use trouble::{Cause, Part, Trouble};
