//! What requests may ask of a launched engine, and why it can refuse.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use kodo_contract::WorkflowId;

/// Why the engine did not do what a request asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine is not launched, it drains, or its database does not answer. Try again.
    #[error("the workflow engine is not available")]
    Unavailable,
    /// The id belongs to a workflow of another kind, which is left as it is. Choose another id.
    #[error("the workflow id belongs to another workflow")]
    TakenByAnotherWorkflow,
    /// Any other reason, for the log.
    #[error("the workflow engine refused: {0}")]
    Refused(String),
}

/// Starts a crash demo under a workflow id and returns once the engine has committed it.
pub type StartCrashDemo =
    Arc<dyn Fn(WorkflowId) -> BoxFuture<'static, Result<(), EngineError>> + Send + Sync>;

/// One launch of the engine, as far as requests use it.
#[derive(Clone)]
pub struct Launched {
    /// The executor id that this process works under.
    pub executor_id: String,
    /// Starts crash demos.
    pub start_crash_demo: StartCrashDemo,
}
