//! The port: what every sandbox provider implements.

use async_trait::async_trait;
use kodo_contract::{ToolCall, ToolResult, Tree};

use crate::tool_outcome::outcome_of;
use crate::{Grant, InputFile, JobResult, JobSpec, Limits, SandboxError, Workspace, job_of};

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
    async fn execute(&self, job: &Job<'_>) -> Result<ToolOutcome, SandboxError> {
        let mut asked = job_of(job.call, job.files, job.workspace)?;
        asked.spec.limits = asked.spec.limits.within(job.most).map_err(|reason| {
            let tool = job.call.name.clone();
            SandboxError::ToolArgsInvalid { tool, reason }
        })?;
        let taken = job.secrets.give(&mut asked.spec, &asked.secrets)?;
        let mut result = self.run(&asked.spec).await?;
        // Reads and writes files, as long as the job may have left.
        let work = move || {
            keep_own_files(&asked.spec)?;
            taken.redact(&mut result, &asked.spec)?;
            outcome_of(result, &asked)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| SandboxError::Unavailable {
                reason: error.to_string(),
            })?
    }
}

/// Adds the call's own files to the content of its workspace: they stay there if the job leaves them as they are.
fn keep_own_files(spec: &JobSpec) -> Result<(), SandboxError> {
    let Some(workspace) = &spec.workspace else {
        return Ok(());
    };
    for file in spec.files.iter().filter(|file| !file.secret) {
        let size = file.content.len() as u64;
        let kept = workspace.content.keep(&mut file.content.as_slice(), size);
        kept.map_err(|error| SandboxError::Unavailable {
            reason: format!("the file {:?} cannot be kept: {error}", file.name),
        })?;
    }
    Ok(())
}

/// What came of a tool call.
#[derive(Clone, Debug)]
pub struct ToolOutcome {
    /// What is recorded. A file whose `stored` is true has its content in the spool of the call's workspace.
    pub result: ToolResult,
    /// The workspace as the call left it, if it had one and all of it can be carried.
    pub workspace: Option<Tree>,
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
    /// The tree in the job's folder when it begins.
    pub workspace: Option<&'a Workspace>,
    /// Further files there, beside the files that the call itself brings, which come over
    /// these.
    pub files: &'a [InputFile],
    /// What it may have of the secrets.
    pub secrets: Grant<'a>,
    /// The most that a call may ask for.
    pub most: &'a Limits,
}
