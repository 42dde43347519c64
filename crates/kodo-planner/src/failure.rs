//! Why a model gave no plan, in a form that can be recorded and replayed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it was: the code that programs see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureCode {
    /// No connection to the provider, or it broke before the answer began.
    PlannerUnreachable,
    /// The provider failed (5xx), each time that it was asked.
    PlannerUnavailable,
    /// The provider wants fewer requests (429), or has no credit left.
    PlannerRateLimited,
    /// No plan came within the deadline.
    PlannerDeadline,
    /// The provider does not take the key.
    PlannerUnauthorized,
    /// The provider does not take the request.
    PlannerRejected,
    /// The answer is longer than is read.
    PlannerAnswerTooLarge,
    /// The answer ended in its middle.
    PlannerAnswerIncomplete,
    /// The answer is no chat completion.
    PlannerAnswerInvalid,
    /// The model declined.
    PlannerDeclined,
    /// The provider's content filter took the answer.
    PlannerFiltered,
    /// The token limit cut the answer off.
    PlannerTruncated,
    /// What the model answered is no valid plan, after all repairs.
    PlanInvalid,
    /// The plan, or the intent, wants what the policy does not allow.
    PlanRefused,
}

impl FailureCode {
    /// The code as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlannerUnreachable => "planner_unreachable",
            Self::PlannerUnavailable => "planner_unavailable",
            Self::PlannerRateLimited => "planner_rate_limited",
            Self::PlannerDeadline => "planner_deadline",
            Self::PlannerUnauthorized => "planner_unauthorized",
            Self::PlannerRejected => "planner_rejected",
            Self::PlannerAnswerTooLarge => "planner_answer_too_large",
            Self::PlannerAnswerIncomplete => "planner_answer_incomplete",
            Self::PlannerAnswerInvalid => "planner_answer_invalid",
            Self::PlannerDeclined => "planner_declined",
            Self::PlannerFiltered => "planner_filtered",
            Self::PlannerTruncated => "planner_truncated",
            Self::PlanInvalid => "plan_invalid",
            Self::PlanRefused => "plan_refused",
        }
    }

    /// Whether the failure is of the connection or the provider, and not an answer to the question: such a
    /// recording never takes the place of a plan.
    pub(crate) fn is_weather(self) -> bool {
        matches!(
            self,
            Self::PlannerUnreachable
                | Self::PlannerUnavailable
                | Self::PlannerRateLimited
                | Self::PlannerDeadline
                | Self::PlannerUnauthorized
                | Self::PlannerAnswerIncomplete
        )
    }
}

/// A failure: its code, and a sentence for people. It names no address, no path and no key, so that it can be
/// recorded as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// What kind of failure it was.
    pub code: FailureCode,
    /// What happened and what to do about it.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_in_a_fixture_as_it_is_shown() {
        for code in [
            FailureCode::PlannerUnreachable,
            FailureCode::PlannerUnavailable,
            FailureCode::PlannerRateLimited,
            FailureCode::PlannerDeadline,
            FailureCode::PlannerUnauthorized,
            FailureCode::PlannerRejected,
            FailureCode::PlannerAnswerTooLarge,
            FailureCode::PlannerAnswerIncomplete,
            FailureCode::PlannerAnswerInvalid,
            FailureCode::PlannerDeclined,
            FailureCode::PlannerFiltered,
            FailureCode::PlannerTruncated,
            FailureCode::PlanInvalid,
            FailureCode::PlanRefused,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
