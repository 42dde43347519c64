//! Idle workflows: the engine's rows say that they are carried out here, and nothing does it. A client of the engine can
//! write such a row. They are returned to the queue.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sysdb::system_db::PendingRow;
use crate::workers::error::WorkerError;
use crate::workers::shared::Shared;

/// A workflow that did not run for this long is stranded. Resuming one that only waits does no harm.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rows that one check considers at most.
const BATCH: i64 = 200;

/// Since when each workflow has been seen pending without running.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    since: HashMap<String, Instant>,
}

impl Idle {
    /// Resumes stranded workflows.
    pub(crate) async fn check(
        &mut self,
        shared: &Shared,
        executor_id: &str,
    ) -> Result<(), WorkerError> {
        let idle: Vec<PendingRow> = shared
            .system_db
            .pending_of(executor_id, &shared.dispatcher.executing(), BATCH)
            .await?
            .into_iter()
            .filter(|row| !shared.dispatcher.knows(&row.workflow_uuid))
            .collect();
        self.since
            .retain(|id, _| idle.iter().any(|row| row.workflow_uuid == *id));
        for row in idle {
            let since = *self
                .since
                .entry(row.workflow_uuid.clone())
                .or_insert_with(Instant::now);
            if since.elapsed() >= PATIENCE && row.idle_ms >= PATIENCE.as_millis() as i64 {
                tracing::warn!(
                    workflow.id = row.workflow_uuid,
                    "a pending workflow did not run; resuming it"
                );
                shared.system_db.resume(&row.workflow_uuid).await?;
                self.since.remove(&row.workflow_uuid);
            }
        }
        Ok(())
    }
}
