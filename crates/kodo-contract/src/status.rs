//! The state machine of a run, written down once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a run stands.
///
/// ```text
/// queued        ──► running, succeeded, failed, canceled
/// running       ──► waiting_input, succeeded, failed, canceled
/// waiting_input ──► running, failed, canceled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted and stored; no step has been recorded yet.
    Queued,
    /// At least one step was recorded.
    Running,
    /// Waits for a person.
    WaitingInput,
    /// Every step of the plan was carried out.
    Succeeded,
    /// Ended with an error, which the run names.
    Failed,
    /// Ended because somebody asked for it.
    Canceled,
}

impl RunStatus {
    /// Every status, in the order in which a run meets them.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::WaitingInput,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The name in JSON and in column `app.runs.status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::WaitingInput => "waiting_input",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether the run has ended; an ended run never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// Whether a run may go from this status to `next`.
    ///
    /// `queued` may become `succeeded` directly: the workflow can be done before anyone has
    /// observed it running, since the sweep settles a run from the engine's record after a crash
    /// and does not replay what it missed. Staying the same is no transition: whoever repeats a
    /// write must see that it was already done.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(
                next,
                Self::Running | Self::Succeeded | Self::Failed | Self::Canceled
            ),
            Self::Running => matches!(
                next,
                Self::WaitingInput | Self::Succeeded | Self::Failed | Self::Canceled
            ),
            Self::WaitingInput => matches!(next, Self::Running | Self::Failed | Self::Canceled),
            Self::Succeeded | Self::Failed | Self::Canceled => false,
        }
    }
}

/// The part of a run that a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The step that asks the planner.
    Planning,
    /// A step that carries out a tool call.
    Executing,
}

impl Phase {
    /// Every phase, in the order in which a run meets them.
    pub const ALL: [Self; 2] = [Self::Planning, Self::Executing];

    /// The name in JSON and in column `app.run_steps.phase`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Executing => "executing",
        }
    }
}

/// A text that names no [`RunStatus`] or no [`Phase`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no {kind}")]
pub struct UnknownName {
    kind: &'static str,
    text: String,
}

impl FromStr for RunStatus {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| UnknownName {
            kind: "run status",
            text: text.to_owned(),
        })
    }
}

impl FromStr for Phase {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| UnknownName {
            kind: "phase",
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_statuses_is_decided() {
        // Rows: from; columns: to, both in the order of ALL.
        let table = [
            "-R.SFC", // queued
            ".-WSFC", // running
            ".R-.FC", // waiting_input
            "...-..", // succeeded
            "....-.", // failed
            ".....-", // canceled
        ];
        for (from, row) in RunStatus::ALL.into_iter().zip(table) {
            for (to, cell) in RunStatus::ALL.into_iter().zip(row.chars()) {
                let allowed = cell.is_ascii_uppercase();
                assert_eq!(from.can_become(to), allowed, "{from} -> {to}");
            }
        }
    }

    #[test]
    fn exactly_the_terminal_statuses_lead_nowhere() {
        for from in RunStatus::ALL {
            let dead_end = !RunStatus::ALL.into_iter().any(|to| from.can_become(to));
            assert_eq!(from.is_terminal(), dead_end, "{from}");
        }
    }

    #[test]
    fn names_round_trip_as_text_and_as_json() {
        for status in RunStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{status}\""));
        }
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
            let json = serde_json::to_string(&phase).unwrap();
            assert_eq!(json, format!("\"{phase}\""));
        }
    }

    #[test]
    fn an_unknown_name_says_what_it_was_read_as() {
        let error = "cancelled".parse::<RunStatus>().unwrap_err();
        assert_eq!(error.to_string(), "\"cancelled\" is no run status");
        assert!("Planning".parse::<Phase>().is_err());
    }
}
