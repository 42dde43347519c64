//! What requests have the launched engine do about one workflow: a verb is a method here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kodo_contract::{RunId, WorkflowId, execution_id};
use serde_json::json;

use crate::handle::EngineHandle;
use crate::launched::{EngineError, Reach};
use crate::run::crash_demo::{self, DemoInput};
use crate::sysdb::journal::{Answer, Begin, Entry, Finds, Owned};
use crate::workers::execute::execute_demo;

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
        let launched = self.for_requests().ok_or(EngineError::Unavailable)?;
        let worker = match launched.0 {
            Reach::Worker(worker) => worker,
            Reach::Fake(answer) => return answer(id.to_owned()).await,
        };
        let input = DemoInput {
            sleep_ms: worker.crash_demo_sleep_ms,
        };
        let it = Arc::new(Owned {
            workflow_id: id.to_owned(),
            owner: execution_id(),
        });
        let begin = Begin {
            name: crash_demo::WORKFLOW,
            input: json!(input).to_string(),
            executor_id: Arc::clone(&worker.executor_id),
            finds: Finds::Nothing,
        };
        let journal = &worker.shared.system_db.journal;
        let entry = Entry {
            it: Arc::clone(&it),
            begin: Some(begin),
            checkpoints: Vec::new(),
            end: None,
        };
        match tokio::time::timeout(COMMIT_TIMEOUT, journal.write(entry)).await {
            Ok(Ok(Answer::Recorded { .. })) => {
                let demo = execute_demo(Arc::clone(&worker), it, input, HashMap::new());
                worker.spawn(demo);
                Ok(())
            }
            Ok(Ok(Answer::Refused(Some((name, _))))) if name == crash_demo::WORKFLOW => Ok(()),
            Ok(Ok(_)) => Err(EngineError::TakenByAnotherWorkflow),
            Ok(Err(error)) if !error.is_transient() => Err(EngineError::Refused(error.to_string())),
            // If it is committed all the same, the client's next try finds it.
            Ok(Err(_)) | Err(_) => Err(EngineError::Unavailable),
        }
    }
}
