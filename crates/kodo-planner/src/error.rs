//! Why there is no plan.

use std::path::PathBuf;

use thiserror::Error;

/// Why a planner gave no plan. The texts end up in the run's `error`, so each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Replay found neither the intent's own fixture nor a default one.
    #[error(
        "no fixture for this intent: looked for {} and for default.json beside it; to record one, \
         write {{\"key\":\"{key}\",\"schemaVersion\":1,\"response\":<plan>}} to that path",
        .path.display()
    )]
    FixtureMissing {
        /// The key that was looked for.
        key: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A fixture is there but must not be used: it is no fixture, no valid plan, or belongs to
    /// another key.
    #[error("fixture {} is invalid: {reason}; repair or remove it", .path.display())]
    FixtureInvalid {
        /// The fixture.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A fixture is there but could not be read.
    #[error("fixture {} cannot be read: {reason}", .path.display())]
    FixtureUnreadable {
        /// The fixture.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The planner cannot be reached for now.
    #[error("the planner is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
}

impl PlanError {
    /// A stable code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::FixtureMissing { .. } => "planner_fixture_missing",
            Self::FixtureInvalid { .. } => "planner_fixture_invalid",
            Self::FixtureUnreadable { .. } => "planner_fixture_unreadable",
            Self::Unavailable { .. } => "planner_unavailable",
        }
    }

    /// Whether the same request may succeed later without anybody's doing.
    ///
    /// An unreadable fixture is not such a case: permissions do not heal, and a run that fails at
    /// once with the reason helps more than one that hangs in retries.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
