//! The product database: schema `app`, one module per aggregate.
//!
//! This is the only crate that holds product SQL. Every effect of a run is written here under its natural
//! key (`run_id, step_id`), in one statement, so that recording it a second time changes nothing.

mod artifacts;
mod binding;
mod content;
mod diagnosis;
mod error;
mod idempotency;
mod intents;
mod invariants;
mod marks;
mod migrations;
mod pool;
mod runs;
mod ssl;
mod steps;
mod workers;

pub use artifacts::{ArtifactRow, Found, NewArtifact};
pub use binding::{Binding, TurnToBind};
pub use content::{HeldContent, UnnamedContent};
pub use diagnosis::{AppliedMigration, ServerFacts};
pub use error::StoreError;
pub use idempotency::{Idempotency, Write};
pub use invariants::{Evidence, INVARIANTS, Invariant, Load, Offender};
pub use marks::{Mark, Marks};
pub use migrations::{MigrationState, known_migrations};
pub use pool::{BY_INDEX, DatabaseConfig, Store, close, connect};
pub use runs::{RunToPlan, Settlement, UnfinishedRun};
pub use ssl::{SslMode, UnknownSslMode};
pub use steps::{NewStep, Recorded};
