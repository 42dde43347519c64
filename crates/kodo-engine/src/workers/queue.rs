//! The engine's queue: workflows that its clients resumed, forked or put there, and what a worker that is gone left.

use std::collections::HashMap;
use std::sync::Arc;

use kodo_contract::{ErrorCode, MAX_ID_BYTES, WorkflowId, execution_id};

use crate::dispatch::dispatcher::Found;
use crate::failure::RunFailure;
use crate::run::crash_demo::{self, DemoInput};
use crate::run::workflow::{self as intent_run, RunInput};
use crate::sysdb::journal::{Begin, Finds, Owned};
use crate::sysdb::system_db::QueuedRow;
use crate::workers::error::WorkerError;
use crate::workers::execute::{begun, end_unreadable, execute_demo};
use crate::workers::launch::{WORKFLOWS, Worker};

/// Workflows that one look considers at most.
const BATCH: i64 = 1000;

/// Offers what waits in the queue. A run that was resumed while it is carried out goes on.
pub(crate) async fn look(worker: &Arc<Worker>) -> Result<(), WorkerError> {
    let shared = &worker.shared;
    let queued = shared.system_db.queued(&WORKFLOWS, BATCH).await?;
    let (runs, others): (Vec<QueuedRow>, Vec<QueuedRow>) = queued
        .into_iter()
        .partition(|row| row.name == intent_run::WORKFLOW);
    let ids: Vec<&str> = runs.iter().map(|row| row.workflow_uuid.as_str()).collect();
    let known = match ids.is_empty() {
        true => HashMap::new(),
        false => shared.ctx.store.runs_of(&ids).await?,
    };
    let running: Vec<(&str, &str)> = known
        .iter()
        .filter_map(|(id, (_, execution))| Some((id.as_str(), execution.as_deref()?)))
        .collect();
    if !running.is_empty() {
        shared.system_db.still_running(&running).await?;
    }
    for row in &runs {
        let id = &row.workflow_uuid;
        let Some(workflow) = WorkflowId::parse(id) else {
            let text = format!(
                "no run can belong to this workflow: its id has {} bytes, and 1 to {MAX_ID_BYTES} without U+0000 are \
                 accepted; fork again under a shorter id",
                id.len()
            );
            fail(worker, row, RunFailure::new(ErrorCode::RunMissing, text)).await;
            continue;
        };
        match known.get(id) {
            Some((_, Some(_))) => continue,
            // It waits for room here.
            _ if shared.dispatcher.knows(id) => continue,
            // It was resumed, and says so also while it waits for room.
            Some((status, None)) if status.is_terminal() => open_again(worker, &workflow).await?,
            _ => {}
        }
        let unreadable = unreadable::<Option<RunInput>>(row);
        shared.dispatcher.offer(workflow, Found::Queued(unreadable));
    }
    for row in &others {
        match unreadable::<DemoInput>(row) {
            Some(failure) => fail(worker, row, failure).await,
            None => go_on(worker, row).await?,
        }
    }
    Ok(())
}

/// Says that a run which was over runs again, because its workflow was resumed through the engine.
async fn open_again(worker: &Worker, workflow: &WorkflowId) -> Result<(), WorkerError> {
    match worker.shared.ctx.store.reopen(workflow).await {
        Ok(true) => tracing::info!(workflow.id = %workflow, "the run is open again"),
        Ok(false) => {}
        Err(error) if error.is_transient() => return Err(error.into()),
        // The run goes on, and its status is settled at its end.
        Err(error) => {
            tracing::warn!(workflow.id = %workflow, %error, "could not open the run again");
        }
    }
    Ok(())
}

/// Ends a workflow that cannot be carried out.
async fn fail(worker: &Arc<Worker>, row: &QueuedRow, failure: RunFailure) {
    let name = match row.name == crash_demo::WORKFLOW {
        true => crash_demo::WORKFLOW,
        false => intent_run::WORKFLOW,
    };
    if let Err(error) = end_unreadable(worker, &row.workflow_uuid, name, failure).await {
        tracing::warn!(workflow.id = row.workflow_uuid, %error, "could not end a workflow");
    }
}

/// Carries a crash demo on, unless another worker is quicker.
async fn go_on(worker: &Arc<Worker>, row: &QueuedRow) -> Result<(), WorkerError> {
    let Ok(input) = serde_json::from_str(row.input.as_deref().unwrap_or("null")) else {
        return Ok(());
    };
    let it = Arc::new(Owned {
        workflow_id: row.workflow_uuid.clone(),
        owner: execution_id(),
    });
    let begin = Begin {
        name: crash_demo::WORKFLOW,
        input: String::new(),
        executor_id: Arc::clone(&worker.executor_id),
        finds: Finds::Queued,
    };
    let begun = begun(worker, &it, begin).await;
    let system_db = &worker.shared.system_db;
    if let Ok(Some(_)) = begun {
        let history = system_db.history(&row.workflow_uuid).await?;
        worker.spawn(execute_demo(Arc::clone(worker), it, input, history));
    }
    Ok(())
}

/// Why the input of a workflow cannot be read, if so.
fn unreadable<T: serde::de::DeserializeOwned>(row: &QueuedRow) -> Option<RunFailure> {
    let input = row.input.as_deref().unwrap_or("null");
    let refused = serde_json::from_str::<T>(input).err()?;
    let text = format!("the workflow's recorded input cannot be read: {refused}");
    Some(RunFailure::new(ErrorCode::InputUnreadable, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(input: Option<&str>) -> QueuedRow {
        QueuedRow {
            workflow_uuid: "w".to_owned(),
            name: String::new(),
            input: input.map(str::to_owned),
        }
    }

    #[test]
    fn only_an_input_that_does_not_decode_is_unreadable() {
        let run = kodo_contract::RunId::generate();
        let good = format!(r#"{{"runId":"{run}"}}"#);
        assert!(unreadable::<Option<RunInput>>(&row(Some(&good))).is_none());
        assert!(unreadable::<DemoInput>(&row(Some(r#"{"sleepMs":1}"#))).is_none());
        // As it is where another SDK has put the input elsewhere. A run is found by its workflow.
        assert!(unreadable::<Option<RunInput>>(&row(None)).is_none());
        assert!(unreadable::<DemoInput>(&row(None)).is_some());
        for bad in [Some("garbage"), Some("{}")] {
            let failure = unreadable::<Option<RunInput>>(&row(bad)).unwrap();
            assert_eq!(failure.code, "input_unreadable");
        }
    }
}
