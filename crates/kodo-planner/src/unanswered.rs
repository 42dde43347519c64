//! Why a request got no answer.

use crate::failure::Failure;
use crate::refusal::Refusal;

/// A request that got no answer.
#[derive(Clone, Debug)]
pub(crate) enum Unanswered {
    /// The provider said no, or that it failed.
    Refused(Refusal),
    /// There is no connection, it broke, or what came is no answer.
    Failed(Failure),
}

#[cfg(any(test, feature = "opencode"))]
impl Unanswered {
    /// The failure of a plan, after so many retries of this request.
    pub(crate) fn failure(self, retries: u32) -> Failure {
        match self {
            Self::Refused(refusal) => refusal.failure(retries),
            Self::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
