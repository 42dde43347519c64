//! Why a tool call was not carried out.

use kodo_contract::ErrorCode;
use thiserror::Error;

/// Why a sandbox gave no result. A tool that ran and failed is no such case: that is a result with
/// an exit code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The mock cannot interpret the call.
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
    /// This sandbox does not have the tool. Nothing was run.
    #[error("tool {tool:?} is not supported by this sandbox: it runs `exec` alone")]
    ToolNotSupported {
        /// The tool.
        tool: String,
    },
    /// The arguments of the tool are invalid. Nothing was run.
    #[error("the arguments of tool {tool:?} are invalid: {reason}")]
    ToolArgsInvalid {
        /// The tool.
        tool: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A job that no sandbox could run. Nothing was run.
    #[error("the job is invalid: {reason}")]
    JobInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The sandbox cannot confine the job as required, and does not run it any weaker. Nothing was run.
    #[error("the sandbox refuses the job: {mechanism}: {reason}")]
    Refused {
        /// What is missing, a word for programs.
        mechanism: String,
        /// What the kernel or the configuration said.
        reason: String,
    },
    /// The kernel is short of something that a job needs to start: processes, memory, descriptors, room. Nothing was run.
    #[error("the machine is short of something that the job needs to start: {mechanism}: {reason}")]
    Shortage {
        /// What was tried, a word for programs.
        mechanism: String,
        /// What the kernel said.
        reason: String,
    },
    /// The job asks for a secret that it does not get. Nothing was run.
    #[error("the secret {name:?} is refused: {reason}")]
    SecretRefused {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The files that the job was to find in its folder are none. Nothing was run.
    #[error("inputs.files is invalid: {reason}")]
    InputFilesInvalid {
        /// What is wrong with them.
        reason: String,
    },
    /// The call itself asked the mock to fail; see [`MockSandbox`](crate::MockSandbox).
    #[error("tool call {tool:?} asked the mock to fail with {code}")]
    Scripted {
        /// The tool.
        tool: String,
        /// The code that the call asked for.
        code: String,
        /// Whether the call asked for an error that goes away by itself (`retryable`).
        transient: bool,
    },
}

impl SandboxError {
    /// The code in the table of error codes. A scripted error has none: it says itself what it is.
    fn known(&self) -> Result<ErrorCode, (&str, bool)> {
        Ok(match self {
            Self::InvalidCall { .. } => ErrorCode::SandboxInvalidCall,
            Self::Unavailable { .. } => ErrorCode::SandboxUnavailable,
            Self::ToolNotSupported { .. } => ErrorCode::ToolNotSupported,
            Self::ToolArgsInvalid { .. } => ErrorCode::ToolArgsInvalid,
            Self::JobInvalid { .. } => ErrorCode::SandboxJobInvalid,
            Self::Refused { .. } => ErrorCode::SandboxRefused,
            Self::Shortage { .. } => ErrorCode::SandboxShortage,
            Self::SecretRefused { .. } => ErrorCode::SecretRefused,
            Self::InputFilesInvalid { .. } => ErrorCode::InputFilesInvalid,
            Self::Scripted {
                code, transient, ..
            } => return Err((code, *transient)),
        })
    }

    /// A stable code, for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self.known() {
            Ok(code) => code.as_str(),
            Err((code, _)) => code,
        }
    }

    /// Whether the same job can succeed later although nobody changes anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.known() {
            Ok(code) => code.is_transient(),
            Err((_, transient)) => transient,
        }
    }
}
