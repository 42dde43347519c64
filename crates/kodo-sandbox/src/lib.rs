//! SBX: what carries out the tool calls of a plan.
//!
//! [`Sandbox`] is the port: a [`JobSpec`] in, a [`JobResult`] out, or a [`SandboxError`] that says why nothing
//! was run. [`MockSandbox`] runs nothing and answers the same to the same call, always; the providers that run
//! something are crates of their own. [`conformance`] is what all of them have in common, as tests.

mod captured;
pub mod conformance;
mod error;
mod exec_schema;
mod job;
mod limits;
mod mock;
mod outcome;
mod overlay;
mod port;
#[doc(hidden)]
pub mod provider;
mod redact;
mod secret;
mod tool;
mod tool_outcome;
mod tool_result;
mod workspace;

pub use captured::Captured;
pub use error::SandboxError;
pub use exec_schema::exec_schema;
pub use job::{InputFile, JobSpec};
pub use limits::Limits;
pub use mock::MockSandbox;
pub use outcome::{Ended, JobResult, OutputFile, Reason, Skipped, Usage};
pub use overlay::Overlay;
pub use port::{Job, Sandbox, ToolOutcome};
pub use secret::{Grant, SecretFile, SecretFolder, SecretUse, granted_secrets};
pub use tool::{EXEC_TOOL, ToolJob, call_fault, input_files, job_of};
pub use tool_outcome::{INLINE_BELOW, files_left, outcome_of};
pub use tool_result::{LIMIT, result_of, tool_file};
pub use workspace::{Spool, SpoolReader, Workspace};
