//! The port: what every sandbox can be asked.

use async_trait::async_trait;
use kodo_contract::{ToolCall, ToolResult};

use crate::{JobResult, JobSpec, SandboxError, job_of, result_of};

/// Something that runs programs, and carries out tool calls by doing so.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// The name of the provider, as it stands in [`ToolResult::provider`].
    fn name(&self) -> &'static str;

    /// Runs one job.
    ///
    /// # Errors
    ///
    /// [`SandboxError`] where nothing was run, or where it is not known what came of it. A program that fails,
    /// or that a limit ends, is a result.
    async fn run(&self, job: &JobSpec) -> Result<JobResult, SandboxError>;

    /// Carries out one tool call, by default as the job that [`job_of`] reads in it. The result is valid as [`encode`](kodo_contract::encode)
    /// understands it.
    ///
    /// It may be asked again with the same idempotency key, after a crash or on a retry, and must
    /// then not do twice what can be seen outside.
    ///
    /// # Errors
    ///
    /// [`SandboxError`], which knows whether asking again can help. A tool that fails is no error
    /// but a result.
    async fn execute(&self, job: &Job<'_>) -> Result<ToolResult, SandboxError> {
        let spec = job_of(job.call)?;
        self.run(&spec).await.map(|result| result_of(&result))
    }
}

/// A tool call as the workflow hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The call.
    pub call: &'a ToolCall,
    /// `run_id/step_id`: the same for every attempt at one step of one run.
    pub idempotency_key: &'a str,
    /// The seed of everything random.
    pub seed: u64,
}
