//! The sweep: starts accepted runs that have no workflow, and settles runs whose workflow has ended.
//!
//! At boot and every few seconds it compares the unfinished runs with the system database, in batches. In a healthy
//! system it writes nothing.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kodo_contract::RunId;
use kodo_store::{Settlement, StoreError};

use crate::dispatch::dispatcher::Found;
use crate::settle::outcome::{settle, settlement};
use crate::workers::error::WorkerError;
use crate::workers::shared::Shared;

/// Pause between two sweeps. It bounds how long the traces of a crash stay visible.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// What the sweep is called where it is awaited.
pub(crate) const SWEEP: &str = "the sweep";

/// Runs that one statement compares at most.
const BATCH: i64 = 500;

/// A run that has no workflow for this long is overdue, unless this worker has no room for it.
const OVERDUE_AFTER: Duration = Duration::from_secs(5);

/// Runs without a workflow, each with the moment at which it was seen so first, or told of last.
#[derive(Debug, Default)]
pub(crate) struct Overdue(HashMap<RunId, Instant>);

impl Overdue {
    fn look(&mut self, waiting: &HashSet<RunId>, has_room: bool) {
        self.0.retain(|run, _| waiting.contains(run));
        for run in waiting {
            let since = *self.0.entry(run.clone()).or_insert_with(Instant::now);
            if has_room && since.elapsed() >= OVERDUE_AFTER {
                tracing::warn!(
                    run.id = %run,
                    waited_s = since.elapsed().as_secs(),
                    "an accepted run does not begin although this worker has room"
                );
                self.0.insert(run.clone(), Instant::now());
            }
        }
    }
}

/// Compares every unfinished run with its workflow, unless another process is doing that right now.
pub(crate) async fn sweep(shared: &Shared, overdue: &mut Overdue) -> Result<(), WorkerError> {
    let Some(lock) = shared.system_db.begin_sweep().await? else {
        return Ok(());
    };
    unfinished(shared, overdue).await?;
    given_up(shared).await?;
    lock.rollback().await?;
    Ok(())
}

/// Ends the claims of this worker that no execution holds: an execution that ends while the database is away leaves its own.
pub(crate) async fn end_forgotten_claims(
    shared: &Shared,
    executor_id: &str,
) -> Result<(), WorkerError> {
    // In this order: an execution is known here before it takes its claim. So a claim without one is a claim whose
    // execution has ended.
    for claim in shared.ctx.store.open_claims(executor_id).await? {
        if !shared
            .dispatcher
            .executes(&claim.workflow_id, &claim.execution)
        {
            settle(&shared.ctx.store, None, Some((&claim.run_id, claim.epoch))).await?;
        }
    }
    Ok(())
}

/// Starts the unfinished runs that nobody carries out, and settles those whose workflow has ended.
async fn unfinished(shared: &Shared, overdue: &mut Overdue) -> Result<(), WorkerError> {
    let mut waiting = HashSet::new();
    let mut capacity = shared.dispatcher.spare_capacity();
    let mut after: Option<RunId> = None;
    loop {
        let runs = shared
            .ctx
            .store
            .unfinished_runs(after.as_ref(), BATCH)
            .await?;
        let Some(last) = runs.last() else {
            overdue.look(&waiting, shared.dispatcher.has_room());
            return Ok(());
        };
        let ids: Vec<&str> = runs.iter().map(|run| run.workflow_id.as_str()).collect();
        let workflows = shared.system_db.workflows(&ids).await?;
        settle_all(shared, workflows.iter().filter_map(settlement)).await?;
        for run in &runs {
            let workflow = workflows
                .iter()
                .find(|workflow| workflow.workflow_uuid == run.workflow_id.as_str());
            let found = match workflow.map(|workflow| workflow.status.as_str()) {
                None => Found::Nothing,
                Some("PENDING") => Found::Workflow,
                // It has ended, or it is in the queue, where the look at the queue finds it.
                Some(_) => continue,
            };
            // One that is claimed and has no workflow had one, which was deleted in its middle. Its execution ends at its
            // next checkpoint, and then the run begins anew from what it has recorded.
            if run.claimed {
                continue;
            }
            waiting.insert(run.id.clone());
            if capacity > 0 && !shared.dispatcher.knows(run.workflow_id.as_str()) {
                tracing::debug!(run.id = %run.id, ?found, "nobody carries out an accepted run");
                shared.dispatcher.offer(run.workflow_id.clone(), found);
                capacity -= 1;
            }
        }
        after = Some(last.id.clone());
        shared.awaited.goes_on(SWEEP);
    }
}

/// Settles the runs that the engine had given up, and that a client of the engine has cancelled since.
async fn given_up(shared: &Shared) -> Result<(), WorkerError> {
    let ids = shared.ctx.store.given_up(BATCH).await?;
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let workflows = shared.system_db.workflows(&ids).await?;
    let cancelled = workflows.iter().filter(|row| row.status == "CANCELLED");
    settle_all(shared, cancelled.filter_map(settlement)).await
}

/// Settles runs, in groups.
async fn settle_all(
    shared: &Shared,
    settlements: impl Iterator<Item = Settlement>,
) -> Result<(), WorkerError> {
    let settling = settlements.map(|settlement| async move {
        match settle(&shared.ctx.store, Some(&settlement), None).await {
            Err(error @ StoreError::Refused(_)) => {
                tracing::error!(workflow.id = %settlement.workflow_id, %error, "a run cannot be settled");
                Ok(())
            }
            settled => settled,
        }
    });
    let settled: Result<Vec<()>, StoreError> = join_all(settling).await.into_iter().collect();
    Ok(settled.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::lease::TAKEOVER_AFTER;

    #[test]
    fn the_invariants_allow_what_a_sweep_and_a_takeover_take() {
        let views = include_str!("../../../../db/migrations/0002_invariants.sql");
        for allowed in [SWEEP_EVERY, TAKEOVER_AFTER + SWEEP_EVERY] {
            let interval = format!("THEN interval '{} s'", allowed.as_secs());
            assert!(views.contains(&interval), "{interval}");
        }
    }
}
