//! The provider `process`: where a job is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kodo_sandbox::provider::Request;
use kodo_sandbox::{JobResult, JobSpec, Sandbox, SandboxError};

use super::enclosure::Enclosure;
use super::job::broken;
use super::shared::{JailConfig, Shared};
use super::spare::Helpers;

/// Pauses between attempts at a job that the kernel was too short of something to start: the first, and the longest.
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(5);

/// The provider `process`.
#[derive(Clone, Debug)]
pub struct Jail {
    pub(crate) shared: Arc<Shared>,
    helpers: Arc<Helpers>,
}

impl Jail {
    /// A jail. Whether this machine can run a job in it is seen by the first job, or by [`Jail::try_out`].
    #[must_use]
    pub fn new(config: JailConfig) -> Self {
        Self::make(config, None)
    }

    /// A jail with an enclosure in it, which brings a kernel of its own for each job.
    pub(crate) fn around(config: JailConfig, enclosure: Enclosure) -> Self {
        Self::make(config, Some(enclosure))
    }

    fn make(config: JailConfig, enclosure: Option<Enclosure>) -> Self {
        let shared = Arc::new(Shared::new(config, enclosure));
        Self {
            helpers: Arc::new(Helpers::new(Arc::clone(&shared))),
            shared,
        }
    }

    /// Runs a job that does nothing, in all that confines a job.
    ///
    /// # Errors
    /// Why this machine, or this configuration, cannot run a job.
    pub async fn try_out(&self) -> Result<JobResult, SandboxError> {
        self.run(&JobSpec::new(["/bin/sh", "-c", "exit 0"])).await
    }
}

#[async_trait]
impl Sandbox for Jail {
    fn name(&self) -> &'static str {
        self.shared.provider()
    }

    async fn run(&self, spec: &JobSpec) -> Result<JobResult, SandboxError> {
        spec.check_without_network()?;
        let gives_up = Instant::now() + self.shared.config.patience;
        let mut pause = SHORT;
        loop {
            match self.run_once(spec).await {
                Err(error @ SandboxError::Shortage { .. }) if Instant::now() + pause < gives_up => {
                    tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "a job waits for the kernel");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONG);
                }
                done => return done,
            }
        }
    }
}

impl Jail {
    async fn run_once(&self, spec: &JobSpec) -> Result<JobResult, SandboxError> {
        let (request, result) = Request::new(spec)?;
        self.helpers.run(request).map_err(broken("thread"))?;
        result.wait().await
    }
}
