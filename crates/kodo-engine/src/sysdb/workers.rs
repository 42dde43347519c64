//! Which workers live and what work is unfinished, for `kodo doctor` and for moving a product database.

use kodo_store::Store;

use crate::holder;
use crate::sysdb::inspect::{InspectError, Inspector};
use crate::sysdb::locks::{LaunchLock, launch_holder, live_workers};
use crate::sysdb::names::{app_name, executor_id, lock_class, slot_of};

/// A worker slot that is held, or was not released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSlot {
    /// The slot's executor id.
    pub executor_id: String,
    /// Whether a session holds the slot's lock, which means that a worker lives.
    pub held: bool,
    /// The holder's process id, if it is a process of this machine.
    pub pid: Option<u32>,
    /// Whether the last holder is certainly dead.
    pub dead: bool,
}

/// Unfinished workflows of one status and one executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedWork {
    /// `PENDING`, `ENQUEUED` or `DELAYED`.
    pub status: String,
    /// The executor that they belong to, if any.
    pub executor_id: Option<String>,
    /// How many.
    pub workflows: i64,
    /// How long ago the engine last updated one of them, in seconds.
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

    /// The session that has the launch lock of a product database, if one has it.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn launch_lock(
        &mut self,
        instance: &str,
    ) -> Result<Option<LaunchLock>, InspectError> {
        Ok(launch_holder(&mut self.0, lock_class(instance)).await?)
    }

    /// Ends a session of the server. Its locks are released, and its transaction is rolled back.
    ///
    /// # Errors
    /// As [`InspectError`] says; also if the role may not.
    pub async fn end_session(&mut self, pid: i32) -> Result<(), InspectError> {
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(pid)
            .execute(&mut self.0)
            .await?;
        Ok(())
    }

    /// The slots of a product database that are held or were not released.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn workers(
        &mut self,
        store: &Store,
        instance: &str,
    ) -> Result<Vec<WorkerSlot>, InspectError> {
        let live = live_workers(&mut self.0, instance).await?;
        let holders = store.slot_holders().await;
        let holders = holders.map_err(InspectError::Product)?;
        Ok(holders
            .into_iter()
            .filter_map(|(slot, holder)| {
                let executor_id = executor_id(slot);
                let held = live.contains(&executor_id);
                let holder = holder.unwrap_or_default();
                (held || !holder.is_empty()).then(|| WorkerSlot {
                    executor_id,
                    held,
                    pid: holder::pid_here(&holder),
                    dead: holder::is_dead(&holder),
                })
            })
            .collect())
    }
}

impl UnfinishedWork {
    /// Whether it waits for a worker that does not live. Queued work waits for any worker.
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
