//! The sweep: starts accepted runs that have no workflow, and settles runs whose workflow has ended.
//!
//! At boot and every few seconds it compares the unfinished runs with the system database, in batches. In a healthy
//! system it writes nothing.

use std::time::Duration;

use kodo_contract::RunId;
use kodo_store::Settlement;

use crate::settle::outcome::{settlement, write};
use crate::workers::error::WorkerError;
use crate::workers::shared::Shared;

/// Pause between two sweeps. It bounds how long the traces of a crash stay visible.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// Runs that one statement compares at most.
const BATCH: i64 = 500;

/// Compares every unfinished run with its workflow, unless another process is doing that right now.
pub(crate) async fn sweep(shared: &Shared) -> Result<(), WorkerError> {
    let Some(lock) = shared.system_db.begin_sweep().await? else {
        return Ok(());
    };
    unfinished(shared).await?;
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
            shared.settler.left(claim.run_id, claim.epoch);
        }
    }
    Ok(())
}

/// Starts the unfinished runs that have no workflow, and settles those whose workflow has ended.
async fn unfinished(shared: &Shared) -> Result<(), WorkerError> {
    let mut capacity = shared.dispatcher.spare_capacity();
    let mut after: Option<RunId> = None;
    loop {
        let runs = shared
            .ctx
            .store
            .unfinished_runs(after.as_ref(), BATCH)
            .await?;
        let Some(last) = runs.last() else {
            return Ok(());
        };
        let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
        let workflows = shared.system_db.workflows(&ids).await?;
        let ended: Vec<Settlement> = workflows.iter().filter_map(settlement).collect();
        write(&shared.ctx.store, &ended, &[]).await?;
        for run in &runs {
            let started = workflows
                .iter()
                .any(|workflow| workflow.workflow_uuid == run.id.as_str());
            // One that is claimed had a workflow, which was deleted in its middle. Its execution ends at its next
            // checkpoint, and then the run begins anew from what it has recorded.
            if !started && !run.claimed && capacity > 0 && !shared.dispatcher.knows(run.id.as_str())
            {
                tracing::debug!(run.id = %run.id, "an accepted run has no workflow");
                shared.dispatcher.offer_swept(&run.id);
                capacity -= 1;
            }
        }
        after = Some(last.id.clone());
    }
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
