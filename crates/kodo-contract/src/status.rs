//! The state machine of a run: its statuses, and which transition leads from which of them to which.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a run stands.
///
/// ```text
/// start   queued, waiting_input ──► running
/// wait    running               ──► waiting_input
/// settle  any                   ──► succeeded, failed, canceled
/// reopen  failed, canceled      ──► running
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

    /// Whether the run has ended. Only the engine can change that: by another outcome, or because the workflow was
    /// resumed.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// Whether `transition` leads from this status to `next`. Staying the same is no transition: whoever repeats a
    /// write must see that it was already done.
    #[must_use]
    pub const fn can_become(self, next: Self, transition: Transition) -> bool {
        match transition {
            Transition::Start => {
                matches!(self, Self::Queued | Self::WaitingInput) && matches!(next, Self::Running)
            }
            Transition::Wait => matches!(self, Self::Running) && matches!(next, Self::WaitingInput),
            Transition::Settle => next.is_terminal() && self as u8 != next as u8,
            Transition::Reopen => {
                matches!(self, Self::Failed | Self::Canceled) && matches!(next, Self::Running)
            }
        }
    }
}

/// What moves a run from one status to another. Each is one statement of the store, which writes only where
/// [`RunStatus::can_become`] allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A step was recorded: the first, or the one after a person has answered.
    Start,
    /// The run waits for a person.
    Wait,
    /// The engine's outcome is written. It counts whatever the row says: a queued run may have succeeded before anyone
    /// has seen it running, and a workflow that was ended and then resumed ends as what it became, so that a terminal
    /// status can give way to another.
    Settle,
    /// The workflow of a run that had failed or was canceled is resumed through the engine. One that succeeded cannot be.
    Reopen,
}

impl Transition {
    /// Every transition.
    pub const ALL: [Self; 4] = [Self::Start, Self::Wait, Self::Settle, Self::Reopen];

    /// The statuses from which it leads to `next`, by name: what a statement compares column `status` with.
    #[must_use]
    pub fn sources(self, next: RunStatus) -> Vec<&'static str> {
        let sources = RunStatus::ALL.into_iter();
        sources
            .filter(|from| from.can_become(next, self))
            .map(RunStatus::as_str)
            .collect()
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
    fn every_pair_of_statuses_is_decided_for_every_transition() {
        // Rows: from; columns: to, both in the order of ALL. The letter is the transition.
        let table = [
            ".S.EEE", // queued
            "..WEEE", // running
            ".S.EEE", // waiting_input
            "....EE", // succeeded
            ".R.E.E", // failed
            ".R.EE.", // canceled
        ];
        for transition in Transition::ALL {
            let letter = match transition {
                Transition::Start => 'S',
                Transition::Wait => 'W',
                Transition::Settle => 'E',
                Transition::Reopen => 'R',
            };
            for (from, row) in RunStatus::ALL.into_iter().zip(table) {
                for (to, cell) in RunStatus::ALL.into_iter().zip(row.chars()) {
                    let allowed = cell == letter;
                    assert_eq!(
                        from.can_become(to, transition),
                        allowed,
                        "{transition:?}: {from} -> {to}"
                    );
                    let sources = transition.sources(to);
                    assert_eq!(sources.contains(&from.as_str()), allowed);
                }
            }
        }
    }

    #[test]
    fn a_run_leaves_a_terminal_status_only_through_the_engine() {
        for from in RunStatus::ALL {
            let moves = Transition::ALL.into_iter().filter(|transition| {
                let mut statuses = RunStatus::ALL.into_iter();
                statuses.any(|to| from.can_become(to, *transition))
            });
            let by_itself = [Transition::Start, Transition::Wait];
            let moves: Vec<Transition> = moves.filter(|it| by_itself.contains(it)).collect();
            assert_eq!(moves.is_empty(), from.is_terminal(), "{from}");
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
