//! What the engine's own clients write into its tables, statement by statement. The clients themselves are tried by
//! `test:interop`.

use sqlx::{AssertSqlSafe, PgPool};

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

/// What `DBOSClient.enqueue` does with the name of the runs' workflow, and as the application of `like`, a run. `differs` is
/// set in the row: a queue, a version, a delay.
pub async fn enqueue(world: &World, id: &str, like: &str, inputs: &str, differs: &str) {
    let statement = "INSERT INTO dbos.workflow_status
             (workflow_uuid, status, name, application_version, inputs, serialization, queue_name, application_name)
         SELECT $1, 'ENQUEUED', name, application_version, $3, serialization, '_dbos_internal_queue', application_name
         FROM dbos.workflow_status WHERE workflow_uuid = $2";
    let mut transaction = world.system.begin().await.expect("a transaction");
    let enqueued = sqlx::query(statement)
        .bind(id)
        .bind(like)
        .bind(inputs)
        .execute(&mut *transaction);
    enqueued.await.expect(id);
    if !differs.is_empty() {
        let change = format!("UPDATE dbos.workflow_status SET {differs} WHERE workflow_uuid = $1");
        let changed = sqlx::query(AssertSqlSafe(change))
            .bind(id)
            .execute(&mut *transaction);
        changed.await.expect(differs);
    }
    transaction.commit().await.expect("a commit");
}

/// What `DBOSClient.fork_workflow` does: a new workflow with the checkpoints before `step`, which waits in the queue.
pub async fn fork(world: &World, source: &str, step: i32) -> String {
    fork_as(world, source, step, None).await
}

/// The same under an id of the client's own (`SetWorkflowID`).
pub async fn fork_as(world: &World, source: &str, step: i32, id: Option<&str>) -> String {
    let fork = fork_in(&world.system, source, step, id).await;
    fork.unwrap_or_else(|error| panic!("a fork of {source}: {error}"))
}

async fn fork_in(
    system: &PgPool,
    source: &str,
    step: i32,
    id: Option<&str>,
) -> Result<String, sqlx::Error> {
    let mut transaction = system.begin().await?;
    let fork: String = sqlx::query_scalar(
        "INSERT INTO dbos.workflow_status
             (workflow_uuid, status, name, class_name, config_name, application_version, application_id,
              authenticated_user, authenticated_roles, assumed_role, inputs, serialization, request, queue_name,
              forked_from, attributes, application_name)
         SELECT coalesce($2, gen_random_uuid()::text), 'ENQUEUED', name, class_name, config_name, application_version, application_id,
                authenticated_user, authenticated_roles, assumed_role, inputs, serialization, request,
                '_dbos_internal_queue', workflow_uuid, attributes, application_name
         FROM dbos.workflow_status WHERE workflow_uuid = $1
         RETURNING workflow_uuid",
    )
    .bind(source)
    .bind(id)
    .fetch_one(&mut *transaction)
    .await?;
    for statement in [
        "UPDATE dbos.workflow_status SET was_forked_from = true WHERE workflow_uuid = $1 AND $2 <> '' AND $3 >= 0",
        "INSERT INTO dbos.operation_outputs
             (workflow_uuid, function_id, output, error, serialization, function_name, child_workflow_id,
              started_at_epoch_ms, completed_at_epoch_ms, application_name)
         SELECT $2, function_id, output, error, serialization, function_name, child_workflow_id, started_at_epoch_ms,
                completed_at_epoch_ms, application_name
         FROM dbos.operation_outputs WHERE workflow_uuid = $1 AND function_id < $3",
    ] {
        sqlx::query(statement)
            .bind(source)
            .bind(&fork)
            .bind(step)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(fork)
}
