//! The port: what every sandbox provider implements.

use async_trait::async_trait;
use kodo_contract::{ToolCall, ToolResult};

use crate::{Grant, InputFile, JobResult, JobSpec, Limits, SandboxError, job_of, result_of};

/// Something that runs programs, and carries out tool calls by doing so.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// The name of the provider, as it stands in [`ToolResult::provider`].
    fn name(&self) -> &'static str;

    /// Runs one job.
    ///
    /// # Errors
    ///
    /// [`SandboxError`] if nothing was run, or the outcome is unknown. A program that fails, or that a limit ends, is a
    /// result.
    async fn run(&self, job: &JobSpec) -> Result<JobResult, SandboxError>;

    /// Whether it runs programs. If not, it needs neither files for them nor the machine's resources.
    fn runs_programs(&self) -> bool {
        true
    }

    /// Carries out one tool call, by default as the job that [`job_of`] reads in it, with the secrets that it names
    /// and without a trace of them in the result. The result is valid as [`encode`](kodo_contract::encode)
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
        let mut asked = job_of(job.call, job.files)?;
        asked.spec.limits = asked.spec.limits.within(job.most).map_err(|reason| {
            let tool = job.call.name.clone();
            SandboxError::ToolArgsInvalid { tool, reason }
        })?;
        let taken = job.secrets.give(&mut asked.spec, &asked.secrets)?;
        let mut result = self.run(&asked.spec).await?;
        taken.redact(&mut result)?;
        Ok(result_of(&result))
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
    /// What is in the job's folder when it begins, beside the files that the call itself brings, which come over
    /// these.
    pub files: &'a [InputFile],
    /// What it may have of the secrets.
    pub secrets: Grant<'a>,
    /// The most that a call may ask for.
    pub most: &'a Limits,
}
