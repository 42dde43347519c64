//! What requests reach of a launched engine, and why it can refuse.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::workers::launch::Worker;

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

/// Answers whatever is asked about the workflow of this id.
type Answer = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), EngineError>> + Send + Sync>;

/// One launch of the engine, as far as requests use it.
#[derive(Clone)]
pub struct Launched(pub(crate) Reach);

/// What is behind it.
#[derive(Clone)]
pub(crate) enum Reach {
    Worker(Arc<Worker>),
    Fake(Answer),
}

impl Launched {
    /// A launch without an engine, for tests of what uses an engine's handle: `answer` answers whatever is asked about a
    /// workflow, whichever verb it is.
    pub fn fake<F>(answer: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        Self(Reach::Fake(Arc::new(move |id| Box::pin(answer(id)))))
    }

    /// The executor id that this process works under.
    pub(crate) fn executor_id(&self) -> &str {
        match &self.0 {
            Reach::Worker(worker) => &worker.executor_id,
            Reach::Fake(_) => "fake",
        }
    }
}
