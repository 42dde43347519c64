//! The sweep: starts accepted runs that have no workflow, and settles runs whose workflow has ended.
//!
//! At boot and every few seconds it compares the unfinished runs with the system database, in batches. In a healthy
//! system it writes nothing.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use kodo_contract::RunId;
use kodo_store::Settlement;

use crate::settle::outcome::{settlement, write};
use crate::settle::settler::ClaimOver;
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

/// Ends the claims of this worker that no execution holds: the report of an end is lost if the database is away.
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
            shared.settler.left(ClaimOver {
                workflow_id: claim.workflow_id,
                run_id: claim.run_id,
                epoch: claim.epoch,
            });
        }
    }
    Ok(())
}

/// Starts the unfinished runs that have no workflow, and settles those whose workflow has ended.
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
        let ended: Vec<Settlement> = workflows.iter().filter_map(settlement).collect();
        write(&shared.ctx.store, &ended, &[]).await?;
        for run in &runs {
            let started = workflows
                .iter()
                .any(|workflow| workflow.workflow_uuid == run.workflow_id.as_str());
            if !started && !run.claimed {
                waiting.insert(run.id.clone());
            }
            // One that is claimed had a workflow, which was deleted in its middle. Its execution ends at its next
            // checkpoint, and then the run begins anew from what it has recorded.
            if !started
                && !run.claimed
                && capacity > 0
                && !shared.dispatcher.knows(run.workflow_id.as_str())
            {
                tracing::debug!(run.id = %run.id, "an accepted run has no workflow");
                let workflow_id = run.workflow_id.clone();
                shared.dispatcher.offer_swept(run.id.clone(), workflow_id);
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
    let ended: Vec<Settlement> = cancelled.filter_map(settlement).collect();
    Ok(write(&shared.ctx.store, &ended, &[]).await?)
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
