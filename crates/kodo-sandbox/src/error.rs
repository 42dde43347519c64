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
    /// The tool is none that this sandbox has. Nothing was run.
    #[error("tool {tool:?} is not supported by this sandbox: it runs `exec` alone")]
    ToolNotSupported {
        /// The tool.
        tool: String,
    },
    /// The arguments of the tool are no job. Nothing was run.
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
    /// The sandbox cannot hold the job as it was asked to, and so does not run it: there is no weaker way.
    #[error("the sandbox refuses the job: {mechanism}: {reason}")]
    Refused {
        /// What is missing, a word for programs.
        mechanism: String,
        /// What the kernel or the configuration said.
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
            Self::ToolNotSupported { .. } => "tool_not_supported",
            Self::ToolArgsInvalid { .. } => "tool_args_invalid",
            Self::JobInvalid { .. } => "sandbox_job_invalid",
            Self::Refused { .. } => "sandbox_refused",
            Self::SecretRefused { .. } => "secret_refused",
            Self::InputFilesInvalid { .. } => "input_files_invalid",
            Self::Scripted { code, .. } => code,
        }
    }

    /// Whether the same job may succeed later without anybody's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InvalidCall { .. }
            | Self::ToolNotSupported { .. }
            | Self::ToolArgsInvalid { .. }
            | Self::JobInvalid { .. }
            | Self::SecretRefused { .. }
            | Self::InputFilesInvalid { .. }
            | Self::Refused { .. } => false,
            Self::Unavailable { .. } => true,
            Self::Scripted { retryable, .. } => *retryable,
        }
    }
}
