//! Which final status a run gets from the engine's row of its workflow, and how it is written.

use kodo_contract::{ErrorCode, RunError, RunId, RunStatus, WorkflowId};
use kodo_store::{Settlement, Store, StoreError};

use crate::failpoint;
use crate::failure::recorded_failure;
use crate::run::workflow as intent_run;
use crate::sysdb::system_db::WorkflowRow;

/// Writes how a run ended, if it has, ends the claim of an execution that is over, by run and epoch, and logs what changed.
///
/// The engine's outcome is committed first and the run's status after it. So a run with a terminal status always has a
/// terminal workflow, and a crash in between leaves a run that the sweep settles.
pub(crate) async fn settle(
    store: &Store,
    settlement: Option<&Settlement>,
    over: Option<(&RunId, i32)>,
) -> Result<(), StoreError> {
    failpoint("settle:before");
    let changed = store.settle(settlement, over).await?;
    failpoint("settle:committed");
    let Some((run_id, settled)) = changed.zip(settlement) else {
        return Ok(());
    };
    let status = settled.status;
    match &settled.error {
        None => tracing::info!(run.id = %run_id, %status, "run ended"),
        Some(error) => tracing::warn!(
            run.id = %run_id,
            %status,
            code = error.code,
            reason = error.message,
            "run ended"
        ),
    }
    Ok(())
}

/// How the row of a run's workflow ends the run; `None` if the workflow has not ended.
pub(crate) fn settlement(row: &WorkflowRow) -> Option<Settlement> {
    let workflow_id = WorkflowId::parse(&row.workflow_uuid)?;
    if row.name.as_deref() != Some(intent_run::WORKFLOW) {
        // Another workflow was started under the run's id, so the run's own can never start.
        return Some(Settlement {
            workflow_id,
            status: RunStatus::Failed,
            error: Some(RunError {
                code: ErrorCode::WorkflowIdTaken.into(),
                message: "another workflow was started under the run's id; start a new run"
                    .to_owned(),
                step_id: None,
            }),
        });
    }
    let (status, error) = match row.status.as_str() {
        "SUCCESS" => (RunStatus::Succeeded, None),
        "ERROR" => (
            RunStatus::Failed,
            Some(recorded_failure(row.error.as_deref())),
        ),
        "CANCELLED" => (RunStatus::Canceled, None),
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED" => (
            RunStatus::Failed,
            Some(RunError {
                code: ErrorCode::RecoveryExhausted.into(),
                message: "the run was recovered too many times without coming to an end; \
                          see what ends its process, then resume the workflow"
                    .to_owned(),
                step_id: None,
            }),
        ),
        _ => return None,
    };
    Some(Settlement {
        workflow_id,
        status,
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(status: &str, error: Option<&str>) -> Option<(RunStatus, Option<String>)> {
        settlement(&WorkflowRow {
            workflow_uuid: RunId::generate().into_string(),
            name: Some(intent_run::WORKFLOW.to_owned()),
            status: status.to_owned(),
            error: error.map(str::to_owned),
        })
        .map(|s| (s.status, s.error.map(|e| e.code)))
    }

    #[test]
    fn every_status_of_the_engine_ends_the_run_or_leaves_it_unfinished() {
        let table = [
            ("PENDING", None),
            ("ENQUEUED", None),
            ("DELAYED", None),
            ("SUCCESS", Some((RunStatus::Succeeded, None))),
            (
                "ERROR",
                Some((RunStatus::Failed, Some("engine_error".to_owned()))),
            ),
            ("CANCELLED", Some((RunStatus::Canceled, None))),
            (
                "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
                Some((RunStatus::Failed, Some("recovery_exhausted".to_owned()))),
            ),
        ];
        for (status, expected) in table {
            assert_eq!(settled(status, None), expected, "{status}");
        }
    }

    #[test]
    fn a_run_whose_id_another_workflow_took_does_not_inherit_its_success() {
        let row = WorkflowRow {
            workflow_uuid: RunId::generate().into_string(),
            name: Some("crash_demo".to_owned()),
            status: "SUCCESS".to_owned(),
            error: None,
        };
        let settled = settlement(&row).unwrap();
        assert_eq!(settled.status, RunStatus::Failed);
        assert_eq!(settled.error.unwrap().code, "workflow_id_taken");
    }
}
