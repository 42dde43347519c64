//! The sweep: no accepted run is lost, no run's status strays from its workflow's.
//!
//! At boot and every few seconds, runs that are not over are compared with the system database, in batches. A
//! healthy system's sweep writes nothing.

use std::time::Duration;

use kodo_contract::RunId;
use kodo_store::{Settlement, StoreError};

use crate::settle::outcome::{settlement, write};
use crate::sysdb::system::SystemError;
use crate::workers::shared::Shared;

/// Pause between two sweeps, which bounds how long a crash's traces stay visible.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// Most runs that one statement compares.
const BATCH: i64 = 500;

/// Second key of the advisory lock that a sweep holds; slots have the numbers from 0.
const SWEEP_LOCK: i32 = -1;

/// Why a sweep ended early. The next one begins anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    System(#[from] SystemError),
}

impl From<sqlx::Error> for SweepError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Compares every unfinished run with its workflow, unless another process is doing that right now.
pub(crate) async fn sweep(shared: &Shared) -> Result<(), SweepError> {
    // Of the transaction, so that it goes however this ends.
    let mut lock = shared.system.pool.begin().await?;
    let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
        .bind(shared.lock_class)
        .bind(SWEEP_LOCK)
        .fetch_one(&mut *lock)
        .await?;
    if !alone {
        return Ok(());
    }
    unfinished(shared).await?;
    lock.rollback().await?;
    Ok(())
}

/// Runs that the product database believes unfinished: started where they have no workflow, settled where
/// their workflow is over.
async fn unfinished(shared: &Shared) -> Result<(), SweepError> {
    let mut appetite = shared.starter.appetite();
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
        let workflows = shared.system.workflows(&ids).await?;
        let ended: Vec<Settlement> = workflows.iter().filter_map(settlement).collect();
        write(&shared.ctx.store, &ended).await?;
        for run in &runs {
            let started = workflows
                .iter()
                .any(|workflow| workflow.workflow_uuid == run.id.as_str());
            if !started && appetite > 0 && !shared.starter.knows(run.id.as_str()) {
                tracing::debug!(run.id = %run.id, "an accepted run has no workflow");
                shared.starter.offer_swept(&run.id);
                appetite -= 1;
            }
        }
        after = Some(last.id.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::slot::TAKEOVER_AFTER;

    #[test]
    fn the_invariants_allow_what_a_sweep_and_a_takeover_take() {
        let views = include_str!("../../../../db/migrations/0002_invariants.sql");
        for allowed in [SWEEP_EVERY, TAKEOVER_AFTER + SWEEP_EVERY] {
            let interval = format!("THEN interval '{} s'", allowed.as_secs());
            assert!(views.contains(&interval), "{interval}");
        }
    }
}
