//! The run's status follows its workflow's: what the engine recorded at the end is written to the run.
//!
//! The order is the point. The engine's outcome is committed first and the run's status after it, so a run
//! that says it is over has a workflow that is, and a crash in between leaves a run for the sweep to settle.

use std::sync::Arc;
use std::time::Duration;

use kodo_contract::{RunError, RunId, RunStatus};
use kodo_store::{Settlement, Store, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::failpoint;
use crate::failure::recorded_failure;
use crate::intent_run;
use crate::system::{System, WorkflowRow};

/// Most runs that one round settles: one statement to each database.
const BATCH: usize = 256;

/// A body ends shortly before the engine records its outcome. How often to look again, [`LOOK_AGAIN`] apart,
/// before the run is left to the sweep.
const LOOKS: u8 = 40;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Bound on one round, so that a server that says nothing ends no more than that round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// What is reported.
#[derive(Debug)]
pub(crate) enum Report {
    /// A run whose workflow ended, or is about to, and how often it was looked at.
    Ended { run_id: RunId, looks: u8 },
    /// Asks to be told when everything reported before has been looked at.
    Flush(oneshot::Sender<()>),
}

/// Where ended runs are reported. Never blocks: a report that is lost costs a sweep, not a run.
#[derive(Debug, Clone)]
pub(crate) struct Settler(UnboundedSender<Report>);

impl Settler {
    /// The reporting and the working end.
    pub(crate) fn new() -> (Self, UnboundedReceiver<Report>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Reports a run whose body has ended.
    pub(crate) fn ended(&self, run_id: RunId) {
        // Fails only where the working end is gone, and with it the process's need to settle.
        let _ = self.0.send(Report::Ended { run_id, looks: 0 });
    }

    /// Waits until what was reported so far has been looked at.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let _ = self.0.send(Report::Flush(done));
        let _ = flushed.await;
    }

    fn look_again(&self, run_id: RunId, looks: u8) {
        let again = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            let looks = looks + 1;
            let _ = again.send(Report::Ended { run_id, looks });
        });
    }
}

/// Settles what is reported, as many at once as have come together while the last round was under way.
pub(crate) async fn work(
    settler: Settler,
    mut reports: UnboundedReceiver<Report>,
    system: Arc<System>,
    store: Store,
) {
    let mut round = Vec::new();
    while reports.recv_many(&mut round, BATCH).await > 0 {
        let mut ended = Vec::with_capacity(round.len());
        let mut flushes = Vec::new();
        for report in round.drain(..) {
            match report {
                Report::Ended { run_id, looks } => ended.push((run_id, looks)),
                Report::Flush(done) => flushes.push(done),
            }
        }
        let ids: Vec<&str> = ended.iter().map(|(run_id, _)| run_id.as_str()).collect();
        let settling = tokio::time::timeout(ROUND_TIMEOUT, settle_now(&system, &store, &ids));
        match settling.await {
            Ok(Ok(over)) => {
                for (run_id, looks) in ended {
                    if !over.contains(&run_id) && looks < LOOKS {
                        settler.look_again(run_id, looks);
                    }
                }
            }
            // The databases are away. The sweep comes when they are back.
            Ok(Err(error)) => {
                tracing::warn!(%error, runs = ids.len(), "could not settle; left to the sweep");
            }
            Err(_) => {
                tracing::warn!(
                    runs = ids.len(),
                    "could not settle in time; left to the sweep"
                );
            }
        }
        for done in flushes {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}

/// Settles those of the given runs whose workflow is over, and returns them.
async fn settle_now(
    system: &System,
    store: &Store,
    ids: &[&str],
) -> Result<Vec<RunId>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
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
    let changed = match store.settle(settlements).await {
        Err(StoreError::Refused(_)) if settlements.len() > 1 => {
            // One of them cannot be stored. The others must not wait for somebody to find out which.
            let mut changed = Vec::new();
            for settlement in settlements {
                match store.settle(std::slice::from_ref(settlement)).await {
                    Ok(mut one) => changed.append(&mut one),
                    Err(error @ StoreError::Refused(_)) => {
                        tracing::error!(run.id = %settlement.run_id, %error, "a run cannot be settled");
                    }
                    Err(error) => return Err(error),
                }
            }
            changed
        }
        settled => settled?,
    };
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
    if row.name.as_deref() != Some(intent_run::WORKFLOW) {
        // Somebody started another workflow under the run's id, so the run's own can never start.
        return Some(Settlement {
            run_id,
            status: RunStatus::Failed,
            error: Some(RunError {
                code: "workflow_id_taken".to_owned(),
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
    fn a_workflow_that_is_no_run_settles_nothing() {
        let row = WorkflowRow {
            workflow_uuid: "crashdemo-1".to_owned(),
            name: Some("crash_demo".to_owned()),
            status: "SUCCESS".to_owned(),
            error: None,
        };
        assert_eq!(settlement(&row), None);
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
