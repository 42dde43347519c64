//! What the engine's own clients write into its tables, statement by statement. The clients themselves are tried by
//! `test:interop`.

use crate::interrupted::system;
use crate::support::World;

/// What `dbos workflow cancel` does.
pub async fn cancel(world: &World, run: &str) {
    system(
        world,
        "UPDATE dbos.workflow_status SET status = 'CANCELLED', queue_name = NULL, deduplication_id = NULL,
             started_at_epoch_ms = NULL, completed_at = (extract(epoch FROM now()) * 1000)::bigint
         WHERE workflow_uuid = $1 AND status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED')",
        run,
    )
    .await;
}

/// What `dbos workflow resume` does.
pub async fn resume(world: &World, run: &str) {
    system(
        world,
        "UPDATE dbos.workflow_status SET status = 'ENQUEUED', queue_name = '_dbos_internal_queue',
             recovery_attempts = 0, workflow_deadline_epoch_ms = NULL, deduplication_id = NULL,
             started_at_epoch_ms = NULL, completed_at = NULL,
             updated_at = (extract(epoch FROM now()) * 1000)::bigint
         WHERE workflow_uuid = $1 AND status NOT IN ('SUCCESS', 'ERROR')",
        run,
    )
    .await;
}

/// What `DBOSClient.delete_workflow` does.
pub async fn delete(world: &World, run: &str) {
    system(
        world,
        "DELETE FROM dbos.workflow_status WHERE workflow_uuid = $1",
        run,
    )
    .await;
}
