//! Takeover: returns the unfinished work of a worker that is gone to the engine's queue.

use std::collections::HashMap;
use std::time::Instant;

use crate::failpoint;
use crate::holder;
use crate::sysdb::locks::{try_lock_slot, unlock_slot};
use crate::sysdb::names::{executor_id, slot_of};
use crate::workers::error::WorkerError;
use crate::workers::lease::TAKEOVER_AFTER;
use crate::workers::shared::Shared;

/// Since when each slot with unfinished work has been seen free without interruption.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    free_since: HashMap<i32, Instant>,
}

impl Takeover {
    /// Checks every other slot that has unfinished work, and takes over the work of free ones: at once if the last
    /// holder is provably dead or released its slot, otherwise after [`TAKEOVER_AFTER`].
    pub(crate) async fn check(&mut self, shared: &Shared, mine: i32) -> Result<(), WorkerError> {
        // If the check ends early, what was seen before proves nothing about the time in between.
        let seen = std::mem::take(&mut self.free_since);
        let mut checked = Self { free_since: seen };
        checked.check_slots(shared, mine).await?;
        *self = checked;
        Ok(())
    }

    async fn check_slots(&mut self, shared: &Shared, mine: i32) -> Result<(), WorkerError> {
        // The engine's row of a run can name another worker than the one that executes it, if a client resumed it.
        let mut busy = shared.system_db.busy_executors().await?;
        for worker in shared.ctx.store.claiming_workers().await? {
            if !busy.contains(&worker) {
                busy.push(worker);
            }
        }
        let live = shared.system_db.live_workers().await?;
        let free: Vec<i32> = busy
            .iter()
            .filter(|id| !live.contains(id))
            .filter_map(|id| slot_of(id))
            .filter(|slot| *slot != mine)
            .collect();
        self.free_since.retain(|slot, _| free.contains(slot));
        for slot in free {
            let mut connection = shared.system_db.session().await?;
            let class = shared.system_db.lock_class;
            if try_lock_slot(&mut connection, class, slot).await? {
                self.decide(shared, slot).await?;
                unlock_slot(&mut connection, class, slot).await?;
            } else {
                self.free_since.remove(&slot);
            }
            sqlx::Connection::close(connection).await?;
        }
        Ok(())
    }

    /// Decides about a slot whose lock this process holds meanwhile.
    async fn decide(&mut self, shared: &Shared, slot: i32) -> Result<(), WorkerError> {
        let holder = shared.ctx.store.slot_holder(slot).await?;
        let gone = holder.as_deref().is_none_or(holder::is_dead);
        let since = *self.free_since.entry(slot).or_insert_with(Instant::now);
        if !gone && since.elapsed() < TAKEOVER_AFTER {
            return Ok(());
        }
        let executor = executor_id(slot);
        failpoint("takeover:before");
        // First, so that whoever takes a workflow from the queue finds its run free. Nothing that the gone worker may
        // still do is recorded from here on.
        shared.ctx.store.end_claims_of(&executor).await?;
        let moved = shared.system_db.reenqueue(&executor).await?;
        failpoint("takeover:committed");
        shared.ctx.store.set_slot_holder(slot, None).await?;
        self.free_since.remove(&slot);
        tracing::info!(
            executor,
            workflows = moved.len(),
            "took over the work of a worker that is gone"
        );
        Ok(())
    }
}
