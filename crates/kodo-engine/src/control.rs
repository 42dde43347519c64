//! What requests have the launched engine do about one workflow: a verb is a method here.

use std::time::Duration;

use dbos::StartOptions;
use kodo_contract::{RunId, WorkflowId};

use crate::handle::EngineHandle;
use crate::launched::{EngineError, Reach};
use crate::run::crash_demo::DemoInput;
use crate::workers::launch::Launch;

/// How long a request waits until the engine has committed what it asks for, below the contract's five seconds.
const COMMIT_TIMEOUT: Duration = Duration::from_millis(3500);

impl EngineHandle {
    /// Starts a crash demo and returns once the engine has committed it. Again with the same id it changes
    /// nothing.
    ///
    /// # Errors
    /// [`EngineError`], each variant of which says what to do.
    pub async fn start_crash_demo(&self, id: &WorkflowId) -> Result<(), EngineError> {
        let id = id.as_str();
        if RunId::parse(id).is_some() {
            // The workflow of a run has the run's id: a demo under it would keep the run from ever starting.
            return Err(EngineError::TakenByAnotherWorkflow);
        }
        self.ask(id, async |engine| {
            let options = StartOptions {
                workflow_id: Some(id),
                ..StartOptions::default()
            };
            let input = DemoInput {
                sleep_ms: engine.crash_demo_sleep_ms,
            };
            engine.crash_demo.start_with(input, options).await.map(drop)
        })
        .await
    }

    /// Asks the launched engine for something about a workflow, and waits until that is committed.
    async fn ask<E: std::error::Error>(
        &self,
        id: &str,
        what: impl AsyncFnOnce(&Launch) -> dbos::Result<(), E>,
    ) -> Result<(), EngineError> {
        let launched = self.for_requests().ok_or(EngineError::Unavailable)?;
        let engine = match launched.0 {
            Reach::Engine(engine) => engine,
            Reach::Fake(answer) => return answer(id.to_owned()).await,
        };
        match tokio::time::timeout(COMMIT_TIMEOUT, what(&engine)).await {
            Ok(Ok(())) => Ok(()),
            // The engine goes on trying; if it succeeds, the client's next try finds it done.
            Err(_) => Err(EngineError::Unavailable),
            Ok(Err(dbos::Error::SystemDatabase(dbos::sysdb::Error::ConflictingWorkflow {
                ..
            }))) => Err(EngineError::TakenByAnotherWorkflow),
            Ok(Err(
                dbos::Error::Interrupted { .. }
                | dbos::Error::NotLaunched { .. }
                | dbos::Error::SystemDatabase(dbos::sysdb::Error::Backend(_)),
            )) => Err(EngineError::Unavailable),
            Ok(Err(other)) => Err(EngineError::Refused(other.to_string())),
        }
    }
}
