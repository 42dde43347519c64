//! Why a model gave no plan, in a form that can be recorded and replayed.

use std::fmt;
use std::time::Duration;

use kodo_contract::ErrorCode;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// The codes that a recorded failure can have: those of failures of a model or its provider.
const CODES: [ErrorCode; 14] = [
    ErrorCode::PlannerUnreachable,
    ErrorCode::PlannerUnavailable,
    ErrorCode::PlannerRateLimited,
    ErrorCode::PlannerDeadline,
    ErrorCode::PlannerUnauthorized,
    ErrorCode::PlannerRejected,
    ErrorCode::PlannerAnswerTooLarge,
    ErrorCode::PlannerAnswerIncomplete,
    ErrorCode::PlannerAnswerInvalid,
    ErrorCode::PlannerDeclined,
    ErrorCode::PlannerFiltered,
    ErrorCode::PlannerTruncated,
    ErrorCode::PlanInvalid,
    ErrorCode::PlanRefused,
];

/// A failure: a code for programs, and a sentence for people. The sentence contains no address, no path and no key, so
/// that it can be recorded as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The kind of failure: one that asking a model can end with.
    #[serde(deserialize_with = "code_of_a_model")]
    pub code: ErrorCode,
    /// What happened and what to do about it.
    pub message: String,
    /// Set if the same question may get an answer later, although nobody changes anything: how long the provider asks to
    /// wait before. Not recorded: a failure that is replayed stays one.
    #[serde(skip)]
    pub passes_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            passes_after: None,
        }
    }

    /// A failure that may pass by itself.
    pub(crate) fn passing(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(code, message).may_pass_after(Duration::ZERO)
    }

    /// The same failure, which may pass by itself after this time.
    pub(crate) fn may_pass_after(mut self, pause: Duration) -> Self {
        self.passes_after = Some(pause);
        self
    }
}

fn code_of_a_model<'de, D: Deserializer<'de>>(from: D) -> Result<ErrorCode, D::Error> {
    let code = ErrorCode::deserialize(from)?;
    if CODES.contains(&code) {
        return Ok(code);
    }
    let text = format!("{code} is no failure of a model");
    Err(D::Error::custom(text))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
