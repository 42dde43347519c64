//! The run's status follows its workflow's: what the engine recorded at the end is written to the run.
//!
//! The order is the point. The engine's outcome is committed first and the run's status after it, so a run
//! that says it is over has a workflow that is, and a crash in between leaves a run for the sweep to settle.

use std::sync::Arc;
use std::time::Duration;

use kodo_contract::{RunError, RunId, RunStatus};
use kodo_store::{Settlement, Store, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::failpoint;
use crate::failure::recorded_failure;
use crate::system::{System, WorkflowRow};

/// Most runs that one round settles: one statement to each database.
const BATCH: usize = 256;

/// A body ends shortly before the engine records its outcome. How often to look again, [`LOOK_AGAIN`] apart,
/// before the run is left to the sweep.
const LOOKS: u8 = 40;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A run whose workflow ended, or is about to.
#[derive(Debug)]
pub(crate) struct Ended {
    run_id: RunId,
    looks: u8,
}

/// Where ended runs are reported. Never blocks: a report that is lost costs a sweep, not a run.
#[derive(Debug, Clone)]
pub(crate) struct Settler(UnboundedSender<Ended>);

impl Settler {
    /// The reporting and the working end.
    pub(crate) fn new() -> (Self, UnboundedReceiver<Ended>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Reports a run whose body has ended.
    pub(crate) fn ended(&self, run_id: RunId) {
        // Fails only where the working end is gone, and with it the process's need to settle.
        let _ = self.0.send(Ended { run_id, looks: 0 });
    }

    fn look_again(&self, ended: Ended) {
        let again = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            let _ = again.send(Ended {
                looks: ended.looks + 1,
                ..ended
            });
        });
    }
}

/// Settles what is reported, as many at once as have come together while the last round was under way.
pub(crate) async fn work(
    settler: Settler,
    mut reports: UnboundedReceiver<Ended>,
    system: Arc<System>,
    store: Store,
) {
    let mut round = Vec::new();
    while reports.recv_many(&mut round, BATCH).await > 0 {
        let ids: Vec<&str> = round.iter().map(|ended| ended.run_id.as_str()).collect();
        match settle_now(&system, &store, &ids).await {
            Ok(over) => {
                for ended in round.drain(..) {
                    if !over.contains(&ended.run_id) && ended.looks < LOOKS {
                        settler.look_again(ended);
                    }
                }
            }
            // The databases are away. The sweep comes when they are back.
            Err(error) => {
                tracing::warn!(%error, runs = round.len(), "could not settle; left to the sweep");
                round.clear();
            }
        }
    }
}

/// Settles those of the given runs whose workflow is over, and returns them.
async fn settle_now(
    system: &System,
    store: &Store,
    ids: &[&str],
) -> Result<Vec<RunId>, StoreError> {
    let rows = system.workflows(ids).await?;
    let settlements: Vec<Settlement> = rows.iter().filter_map(settlement).collect();
    write(store, &settlements).await?;
    Ok(settlements
        .into_iter()
        .map(|settlement| settlement.run_id)
        .collect())
}

/// Writes settlements and logs each run that changed.
pub(crate) async fn write(store: &Store, settlements: &[Settlement]) -> Result<(), StoreError> {
    if settlements.is_empty() {
        return Ok(());
    }
    failpoint("settle:before");
    let changed = store.settle(settlements).await?;
    failpoint("settle:committed");
    for run_id in &changed {
        let Some(settled) = settlements.iter().find(|s| s.run_id == *run_id) else {
            continue;
        };
        match &settled.error {
            None => tracing::info!(run.id = %run_id, status = %settled.status, "run ended"),
            Some(error) => tracing::warn!(
                run.id = %run_id,
                status = %settled.status,
                code = error.code,
                reason = error.message,
                "run ended"
            ),
        }
    }
    Ok(())
}

/// How a workflow's row ends its run; `None` while the workflow is not over.
pub(crate) fn settlement(row: &WorkflowRow) -> Option<Settlement> {
    let run_id = RunId::parse(&row.workflow_uuid)?;
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
                code: "recovery_exhausted".to_owned(),
                message: "the run was recovered too many times without coming to an end; \
                          see what ends its process, then resume the workflow"
                    .to_owned(),
                step_id: None,
            }),
        ),
        _ => return None,
    };
    Some(Settlement {
        run_id,
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
    fn a_workflow_that_is_no_run_settles_nothing() {
        let row = WorkflowRow {
            workflow_uuid: "crashdemo-1".to_owned(),
            status: "SUCCESS".to_owned(),
            error: None,
        };
        assert_eq!(settlement(&row), None);
    }
}
