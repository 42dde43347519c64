//! A job on its way to the thread that runs it, and its result on the way back.

use std::io::{PipeReader, PipeWriter};

use tokio::sync::oneshot;

use crate::{JobResult, JobSpec, SandboxError};

/// A job, for a thread of its own: what runs a program dies with the thread that started it, which must therefore not be
/// one of the runtime's.
#[derive(Debug)]
pub struct Request {
    /// The job.
    pub spec: JobSpec,
    /// Becomes readable once nobody waits for the result any more.
    pub abandoned: PipeReader,
    /// Where the result goes.
    pub answer: oneshot::Sender<Result<JobResult, SandboxError>>,
}

/// The result of a [`Request`]. Dropping it abandons the job.
#[derive(Debug)]
pub struct PendingResult {
    _open: PipeWriter,
    answer: oneshot::Receiver<Result<JobResult, SandboxError>>,
}

impl Request {
    /// A request for a job.
    ///
    /// # Errors
    /// [`SandboxError::Shortage`] if no pipe can be made.
    pub fn new(spec: &JobSpec) -> Result<(Self, PendingResult), SandboxError> {
        let (abandoned, open) = std::io::pipe().map_err(|error| SandboxError::Shortage {
            mechanism: "pipe".to_owned(),
            reason: error.to_string(),
        })?;
        let (answer, answered) = oneshot::channel();
        let request = Self {
            spec: spec.clone(),
            abandoned,
            answer,
        };
        let pending = PendingResult {
            _open: open,
            answer: answered,
        };
        Ok((request, pending))
    }
}

impl PendingResult {
    /// Waits for the result.
    ///
    /// # Errors
    /// Those of the job, or [`SandboxError::Unavailable`] if its thread ended without an answer.
    pub async fn wait(self) -> Result<JobResult, SandboxError> {
        self.answer.await.unwrap_or_else(|_| {
            Err(SandboxError::Unavailable {
                reason: "the thread of the job ended without an answer".to_owned(),
            })
        })
    }
}
