//! Why a tool call was not carried out.

use thiserror::Error;

/// Why a sandbox gave no result. A tool that ran and failed is no such case: that is a result with
/// an exit code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The call asks for something that this sandbox cannot make sense of.
    #[error("tool call {tool:?} is invalid: {reason}")]
    InvalidCall {
        /// The tool.
        tool: String,
        /// What is wrong with the call.
        reason: String,
    },
    /// The sandbox cannot be reached for now.
    #[error("the sandbox is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The call itself asked the mock to fail; see [`MockSandbox`](crate::MockSandbox).
    #[error("tool call {tool:?} asked the mock to fail with {code}")]
    Scripted {
        /// The tool.
        tool: String,
        /// The code that the call asked for.
        code: String,
        /// Whether the call asked for an error that retrying can help.
        retryable: bool,
    },
}

impl SandboxError {
    /// A stable code, for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::InvalidCall { .. } => "sandbox_invalid_call",
            Self::Unavailable { .. } => "sandbox_unavailable",
            Self::Scripted { code, .. } => code,
        }
    }

    /// Whether the same job may succeed later without anybody's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InvalidCall { .. } => false,
            Self::Unavailable { .. } => true,
            Self::Scripted { retryable, .. } => *retryable,
        }
    }
}
