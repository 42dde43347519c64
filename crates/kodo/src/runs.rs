//! The engine behind the server's port. The server is up before there is an engine.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use kodo_contract::{RunId, WorkflowId};
use kodo_engine::{Engine, StartError, failpoint};
use kodo_server::{CrashDemoError, Runs};

/// The engine, once boot has started it.
#[derive(Clone, Default)]
pub(crate) struct EngineRuns(Arc<OnceLock<Engine>>);

impl EngineRuns {
    /// Hands the engine over. Called once.
    pub(crate) fn set(&self, engine: Engine) {
        // A second engine would be a bug of the boot sequence; the first one stays.
        let _ = self.0.set(engine);
    }

    /// The engine, if boot has come that far.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.0.get()
    }
}

#[async_trait]
impl Runs for EngineRuns {
    fn is_launched(&self) -> bool {
        self.engine().is_some_and(Engine::is_launched)
    }

    fn is_draining(&self) -> bool {
        self.engine().is_some_and(Engine::is_draining)
    }

    fn accepted(&self, run: &RunId) {
        if let Some(engine) = self.engine() {
            engine.accepted(run);
        }
    }

    async fn start_crash_demo(&self, id: &WorkflowId) -> Result<(), CrashDemoError> {
        let engine = self.engine().ok_or(CrashDemoError::Unavailable)?;
        engine
            .start_crash_demo(id)
            .await
            .map_err(|error| match error {
                StartError::Unavailable => CrashDemoError::Unavailable,
                StartError::TakenByAnotherWorkflow => CrashDemoError::TakenByAnotherWorkflow,
                StartError::Refused(reason) => CrashDemoError::Internal(reason),
            })
    }

    async fn system_database(&self) -> bool {
        match self.engine() {
            Some(engine) => engine.system_database_answers().await,
            None => false,
        }
    }

    fn failpoint(&self, name: &str) {
        failpoint(name);
    }
}
