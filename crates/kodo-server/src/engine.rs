//! The port to the engine: what the HTTP layer needs of the durable workflows, and no more.

use async_trait::async_trait;
use kodo_contract::{RunId, WorkflowId};

/// The durable side of the service, as the routes see it. The binary implements it for the engine.
///
/// It exists before the engine is launched: both ports are served from the first moment.
#[async_trait]
pub trait Runs: Send + Sync + 'static {
    /// Whether the engine is launched and takes work.
    fn is_launched(&self) -> bool;

    /// Whether the process is on its way out: nothing new is accepted.
    fn is_draining(&self) -> bool;

    /// A hint that this run was committed and can start. It may get lost, with the process or because the request
    /// was cut off after the commit; the sweep finds such a run. Never blocks.
    fn accepted(&self, run: &RunId);

    /// Starts the crash demo under this workflow id, or finds that it was started before: the same answer.
    ///
    /// # Errors
    /// [`CrashDemoError`].
    async fn start_crash_demo(&self, id: &WorkflowId) -> Result<(), CrashDemoError>;

    /// Whether the engine's own database answers. The caller bounds the wait.
    async fn system_database(&self) -> bool;

    /// A place where a test can make the process die: `before` its handler commits anything, `committed` where that
    /// is not the end of its work, and before its `answer`.
    fn failpoint(&self, _name: &str) {}
}

/// Why the crash demo was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrashDemoError {
    /// The engine is not launched, or its database is away. Trying again can help.
    #[error("the engine is unavailable")]
    Unavailable,
    /// The id belongs to a workflow that is no crash demo. It stays what it is; take another id.
    #[error("the workflow id belongs to another workflow")]
    TakenByAnotherWorkflow,
    /// Anything else, for the log.
    #[error("{0}")]
    Internal(String),
}
