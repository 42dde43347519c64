//! The settler: writes a run's final status from the outcome that the engine recorded.
//!
//! The engine's outcome is committed first and the run's status after it. So a run with a terminal status always has a
//! terminal workflow, and a crash in between leaves a run that the sweep settles.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kodo_contract::RunId;
use kodo_store::{Settlement, Store, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::settle::outcome::{settlement, write};
use crate::sysdb::system_db::SystemDb;

/// Most runs that one round settles, with one statement to each database.
const BATCH: usize = 256;

/// How often the engine's row of an ended run is read, [`CHECK_AGAIN`] apart, before the run is left to the sweep: the
/// body ends shortly before the engine records its outcome.
const CHECKS: u8 = 40;
const CHECK_AGAIN: Duration = Duration::from_millis(5);

/// How long after its end an execution keeps its claim if it records no outcome: because it was superseded, say.
const OUTCOME_WITHIN: Duration = Duration::from_millis(200);

/// Bound on one round, so that a server that does not answer costs only that round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// A message to the settler.
#[derive(Debug)]
pub(crate) enum Report {
    /// An execution that is over. Its claim ends with its run, or after [`OUTCOME_WITHIN`] without one.
    Left(ClaimOver),
    /// That time has passed.
    StillLeft(ClaimOver),
    /// A workflow of a run that ended or is about to, and how often its row was read.
    Ended { workflow_id: String, checks: u8 },
    /// Asks for a reply once everything reported before has been processed. Nothing is processed after it.
    Finish(oneshot::Sender<()>),
}

/// The claim of an execution that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimOver {
    pub(crate) workflow_id: String,
    pub(crate) run_id: RunId,
    pub(crate) epoch: i32,
}

/// Takes reports of ended runs. Never blocks; a run whose report is lost is settled by the sweep.
#[derive(Debug, Clone)]
pub(crate) struct Settler(UnboundedSender<Report>);

impl Settler {
    /// The sender of reports, and the receiver for [`work`].
    pub(crate) fn new() -> (Self, UnboundedReceiver<Report>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Reports that an execution, which held this claim, is over. The claim ends in the statement that settles the run,
    /// because no other execution should begin before the outcome of this one is recorded.
    pub(crate) fn left(&self, claim: ClaimOver) {
        let _ = self.0.send(Report::Left(claim));
    }

    /// Reports a workflow of a run whose body has ended.
    pub(crate) fn ended(&self, workflow_id: String) {
        // Fails only if the receiver is gone, and then the process ends.
        let checks = 0;
        let _ = self.0.send(Report::Ended {
            workflow_id,
            checks,
        });
    }

    /// Waits until what was reported so far has been processed. What is reported later is left to the sweep: the
    /// engine is shut down by then, and the databases are about to be closed.
    pub(crate) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        let _ = self.0.send(Report::Finish(done));
        let _ = finished.await;
    }

    fn after(&self, pause: Duration, report: Report) {
        let later = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = later.send(report);
        });
    }
}

/// Settles what is reported. Each round takes all reports that arrived during the one before.
pub(crate) async fn work(
    settler: Settler,
    mut reports: UnboundedReceiver<Report>,
    system_db: Arc<SystemDb>,
    store: Store,
) {
    let mut round = Vec::new();
    // The claims of executions that are over, by workflow.
    let mut left: HashMap<String, ClaimOver> = HashMap::new();
    while reports.recv_many(&mut round, BATCH).await > 0 {
        let mut ended = Vec::with_capacity(round.len());
        let mut finished = None;
        for report in round.drain(..) {
            match report {
                Report::Left(claim) => {
                    left.insert(claim.workflow_id.clone(), claim.clone());
                    settler.after(OUTCOME_WITHIN, Report::StillLeft(claim));
                }
                Report::StillLeft(claim) => {
                    if left.get(&claim.workflow_id) == Some(&claim) {
                        ended.push((claim.workflow_id, CHECKS));
                    }
                }
                Report::Ended {
                    workflow_id,
                    checks,
                } => ended.push((workflow_id, checks)),
                Report::Finish(done) => finished = Some(done),
            }
        }
        let settling = tokio::time::timeout(
            ROUND_TIMEOUT,
            settle_now(&system_db, &store, &ended, &mut left),
        );
        match settling.await {
            Ok(Ok(over)) => {
                for (workflow_id, checks) in ended {
                    if !over.contains(&workflow_id) && checks < CHECKS && finished.is_none() {
                        let checks = checks + 1;
                        let again = Report::Ended {
                            workflow_id,
                            checks,
                        };
                        settler.after(CHECK_AGAIN, again);
                    }
                }
            }
            // A database does not answer. The sweep settles the runs and ends the claims once it does.
            Ok(Err(error)) => {
                tracing::warn!(%error, runs = ended.len(), "could not settle; left to the sweep");
            }
            Err(_) => {
                tracing::warn!(
                    runs = ended.len(),
                    "could not settle in time; left to the sweep"
                );
            }
        }
        if let Some(done) = finished {
            // The requester may have stopped waiting.
            let _ = done.send(());
            return;
        }
    }
}

/// Settles the runs of those of the given workflows that have ended, and returns these. Their claims end with them; those of runs
/// that were checked often enough end, too: their executions ended without an outcome.
async fn settle_now(
    system_db: &SystemDb,
    store: &Store,
    ended: &[(String, u8)],
    left: &mut HashMap<String, ClaimOver>,
) -> Result<Vec<String>, StoreError> {
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = ended.iter().map(|(id, _)| id.as_str()).collect();
    let rows = system_db.workflows(&ids).await?;
    let settlements: Vec<Settlement> = rows.iter().filter_map(settlement).collect();
    let settled: Vec<String> = settlements
        .iter()
        .map(|it| it.workflow_id.to_string())
        .collect();
    let over: Vec<ClaimOver> = ended
        .iter()
        .filter(|(id, checks)| *checks >= CHECKS || settled.contains(id))
        .filter_map(|(id, _)| left.get(id).cloned())
        .collect();
    let claims: Vec<(RunId, i32)> = over
        .iter()
        .map(|claim| (claim.run_id.clone(), claim.epoch))
        .collect();
    write(store, &settlements, &claims).await?;
    for claim in &over {
        left.remove(&claim.workflow_id);
    }
    Ok(settled)
}
