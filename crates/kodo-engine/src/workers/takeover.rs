//! A worker that is gone leaves work behind; any other worker returns it to the engine's queue.

use std::collections::HashMap;
use std::time::Instant;

use crate::failpoint;
use crate::workers::holder;
use crate::workers::shared::Shared;
use crate::workers::slot::{self, TAKEOVER_AFTER};
use crate::workers::sweep::SweepError;

/// Since when each slot with unfinished work has been seen free, without a gap.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    free_since: HashMap<i32, Instant>,
}

impl Takeover {
    /// Looks at every other slot that has unfinished work, and takes over what belongs to nobody: at once
    /// where the last holder is provably dead or gave its slot back, else after [`TAKEOVER_AFTER`].
    pub(crate) async fn look(&mut self, shared: &Shared, mine: i32) -> Result<(), SweepError> {
        let looked = self.try_look(shared, mine).await;
        if looked.is_err() {
            // The server was away: what was seen before proves nothing about the time in between.
            self.free_since.clear();
        }
        looked
    }

    async fn try_look(&mut self, shared: &Shared, mine: i32) -> Result<(), SweepError> {
        let busy = shared.system.busy_executors().await?;
        let held = shared.system.held_slots(shared.lock_class).await?;
        let free: Vec<i32> = busy
            .iter()
            .filter_map(|id| slot::slot_of(id))
            .filter(|slot| *slot != mine && !held.contains(&i64::from(*slot)))
            .collect();
        self.free_since.retain(|slot, _| free.contains(slot));
        for slot in free {
            // Detached from the pool: a session lock must go with its connection, never back into a pool.
            let mut connection = shared.system.pool.acquire().await?.detach();
            if slot::try_lock(&mut connection, shared.lock_class, slot).await? {
                self.decide(shared, slot).await?;
                slot::unlock(&mut connection, shared.lock_class, slot).await?;
            } else {
                self.free_since.remove(&slot);
            }
            sqlx::Connection::close(connection).await?;
        }
        Ok(())
    }

    /// Decides about a slot whose lock this process holds for the moment.
    async fn decide(&mut self, shared: &Shared, slot: i32) -> Result<(), SweepError> {
        let holder = shared.ctx.store.slot_holder(slot).await?;
        let gone = holder.as_deref().is_none_or(holder::is_dead);
        let since = *self.free_since.entry(slot).or_insert_with(Instant::now);
        if !gone && since.elapsed() < TAKEOVER_AFTER {
            return Ok(());
        }
        let executor_id = slot::executor_id(slot);
        failpoint("takeover:before");
        let moved = shared.system.reenqueue(&executor_id).await?;
        failpoint("takeover:committed");
        shared.ctx.store.set_slot_holder(slot, None).await?;
        self.free_since.remove(&slot);
        tracing::info!(
            executor = executor_id,
            workflows = moved.len(),
            "took over the work of a worker that is gone"
        );
        Ok(())
    }
}
