//! The errors of a planner.

use std::path::PathBuf;
use std::time::Duration;

use kodo_contract::ErrorCode;
use thiserror::Error;

use crate::Failure;

/// Why a planner gave no plan. The texts end up in the run's `error`, so each says what to do.
///
/// A planner has sent its own requests again until its deadline before it gives up. Whether asking later may help is
/// [`passes_after`](Self::passes_after).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Replay found neither the intent's own fixture nor a default one.
    #[error(
        "no fixture for this intent: looked for {} and for default.json beside it; to record one, \
         write {{\"key\":\"{key}\",\"schemaVersion\":1,\"response\":<plan>}} to that path, or run it with OC_MODE=record",
        .path.display()
    )]
    FixtureMissing {
        /// The key that was looked for.
        key: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a fixture that must not be used: it is malformed, contains no valid plan, or belongs to another key.
    #[error("fixture {} is invalid: {reason}; repair or remove it", .path.display())]
    FixtureInvalid {
        /// The fixture.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a fixture that could not be read.
    #[error("fixture {} cannot be read: {reason}", .path.display())]
    FixtureUnreadable {
        /// The fixture.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A recording could not be saved.
    #[error("fixture {} cannot be written: {reason}", .path.display())]
    FixtureUnwritable {
        /// The fixture.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The model gave no plan, now or when the fixture was recorded.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl PlanError {
    /// Set if the same question may get an answer later, although nobody changes anything: how long the provider asks to
    /// wait before. A failure that was replayed does not pass.
    #[must_use]
    pub fn passes_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(failure) => failure.passes_after,
            _ => None,
        }
    }

    /// A stable code, for programs.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::FixtureMissing { .. } => ErrorCode::PlannerFixtureMissing,
            Self::FixtureInvalid { .. } => ErrorCode::PlannerFixtureInvalid,
            Self::FixtureUnreadable { .. } => ErrorCode::PlannerFixtureUnreadable,
            Self::FixtureUnwritable { .. } => ErrorCode::PlannerFixtureUnwritable,
            Self::Failed(failure) => failure.code,
        }
    }
}
