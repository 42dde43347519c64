//! Who works, and on whose account work is unfinished: for `kodo doctor`.

use kodo_store::Store;

use crate::sysdb::inspect::{InspectError, Inspector};
use crate::sysdb::system::app_name;
use crate::workers::holder;
use crate::workers::slot::{executor_id, lock_class, slot_of};

/// A worker slot that somebody holds, or did not give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSlot {
    /// The slot's executor id.
    pub executor_id: String,
    /// Whether a session holds the slot's lock: a worker lives.
    pub held: bool,
    /// The holder's process id, where it is one of this machine.
    pub pid: Option<u32>,
    /// Whether the last holder is certainly over.
    pub dead: bool,
}

/// Workflows of one status that one executor is to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedWork {
    /// `PENDING`, `ENQUEUED` or `DELAYED`.
    pub status: String,
    /// Whose they are, if anybody's.
    pub executor_id: Option<String>,
    /// How many.
    pub workflows: i64,
    /// How long ago the engine last touched one of them, in seconds.
    pub idle_seconds: i64,
}

impl Inspector {
    /// How many workflows of a product database have each status.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn counts(&mut self, instance: &str) -> Result<Vec<(String, i64)>, InspectError> {
        Ok(sqlx::query_as(
            "SELECT status, count(*) FROM dbos.workflow_status WHERE application_name = $1
             GROUP BY status ORDER BY status",
        )
        .bind(app_name(instance))
        .fetch_all(&mut self.0)
        .await?)
    }

    /// What is unfinished, by status and executor.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn unfinished(
        &mut self,
        instance: &str,
    ) -> Result<Vec<UnfinishedWork>, InspectError> {
        let rows: Vec<(String, Option<String>, i64, i64)> = sqlx::query_as(
            "SELECT status, executor_id, count(*),
                    extract(epoch FROM now())::bigint - max(updated_at) / 1000
             FROM dbos.workflow_status
             WHERE application_name = $1 AND status IN ('PENDING', 'ENQUEUED', 'DELAYED')
             GROUP BY status, executor_id ORDER BY status, executor_id",
        )
        .bind(app_name(instance))
        .fetch_all(&mut self.0)
        .await?;
        Ok(rows
            .into_iter()
            .map(
                |(status, executor_id, workflows, idle_seconds)| UnfinishedWork {
                    status,
                    executor_id,
                    workflows,
                    idle_seconds,
                },
            )
            .collect())
    }

    /// The slots of a product database that are held or were not given back.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn workers(
        &mut self,
        store: &Store,
        instance: &str,
    ) -> Result<Vec<WorkerSlot>, InspectError> {
        let class = i64::from(u32::from_ne_bytes(lock_class(instance).to_ne_bytes()));
        let held: Vec<i64> = sqlx::query_scalar(
            "SELECT objid::bigint FROM pg_locks
             WHERE locktype = 'advisory' AND granted AND classid = $1::oid AND objsubid = 2
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .bind(class)
        .fetch_all(&mut self.0)
        .await?;
        let holders = store.slot_holders().await?;
        Ok(holders
            .into_iter()
            .filter_map(|(slot, holder)| {
                let held = held.contains(&i64::from(slot));
                let holder = holder.unwrap_or_default();
                (held || !holder.is_empty()).then(|| WorkerSlot {
                    executor_id: executor_id(slot),
                    held,
                    pid: holder::pid_here(&holder),
                    dead: holder::is_dead(&holder),
                })
            })
            .collect())
    }
}

impl UnfinishedWork {
    /// Whether it waits for a worker that does not live: queued work waits for anybody.
    pub fn is_abandoned(&self, workers: &[WorkerSlot]) -> bool {
        let Some(executor) = self
            .executor_id
            .as_deref()
            .filter(|_| self.status == "PENDING")
        else {
            return false;
        };
        slot_of(executor).is_some()
            && !workers
                .iter()
                .any(|worker| worker.held && worker.executor_id == executor)
    }
}
