//! The provider `process`: where a job is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use kodo_sandbox::provider::Request;
use kodo_sandbox::{JobResult, JobSpec, Sandbox, SandboxError};

use super::enclosure::Enclosure;
use super::shared::{JailConfig, Shared};
use super::spare::Helpers;

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
        let (request, result) = Request::new(spec)?;
        self.helpers
            .run(request)
            .map_err(|error| SandboxError::Unavailable {
                reason: format!("no thread: {error}"),
            })?;
        result.wait().await
    }
}
