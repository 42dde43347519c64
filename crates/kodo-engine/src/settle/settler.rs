//! The run's status follows its workflow's: what the engine recorded at the end is written to the run.
//!
//! The order is the point. The engine's outcome is committed first and the run's status after it, so a run
//! that says it is over has a workflow that is, and a crash in between leaves a run for the sweep to settle.

use std::sync::Arc;
use std::time::Duration;

use kodo_contract::RunId;
use kodo_store::{Settlement, Store, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::settle::outcome::{settlement, write};
use crate::sysdb::system::System;

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
