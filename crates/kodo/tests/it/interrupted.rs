//! A run that is interrupted in its middle, and what it says when it ends in failure.

use serde_json::Value;

use crate::evidence::{begun, checkpointed, error_of, workflow};
use crate::support::{OTHER_INTENT, World};

/// Longer than any test: a tool call that takes this long is in the middle of it until its process is killed.
pub const FOR_EVER: u64 = 600_000;

/// A world whose tool calls take this long, in milliseconds, and a run that is in its first one.
pub async fn interrupted(test: &str, tool_ms: u64) -> (World, String) {
    let world = World::with(test, |options| options.env("SBX_MOCK_DELAY_MS", tool_ms)).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    checkpointed(&world, &run, "plan").await;
    (world, run)
}

/// The same, with the worker killed.
pub async fn abandoned(test: &str) -> (World, String) {
    let (mut world, run) = interrupted(test, FOR_EVER).await;
    world.service.kill9().await.expect("kill");
    (world, run)
}

/// The same, given up by the engine, which recovered it too often; on a service whose tool calls take this long.
pub async fn given_up(test: &str, tool_ms: u64) -> (World, String) {
    let (mut world, run) = abandoned(test).await;
    // The engine gives up by itself at the next recovery.
    let often = "UPDATE dbos.workflow_status SET recovery_attempts = 1000 WHERE workflow_uuid = $1";
    system(&world, often, &run).await;
    let options = world.options.clone().env("SBX_MOCK_DELAY_MS", tool_ms);
    world.restart(&options).await;
    let status = "MAX_RECOVERY_ATTEMPTS_EXCEEDED";
    failed(&world, &run, "recovery_exhausted", status).await;
    (world, run)
}

/// Starts the service again, with tool calls that take no time.
pub async fn restart(world: &mut World) {
    let quick = world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    world.restart(&quick).await;
}

/// Changes the engine's row of a run, once it is there.
pub async fn system(world: &World, statement: &'static str, run: &str) {
    begun(world, run).await;
    let changed = sqlx::query(statement)
        .bind(run)
        .execute(&world.system)
        .await
        .expect(statement)
        .rows_affected();
    assert_eq!(changed, 1, "{statement}");
}

/// The run failed with this code; row, artifact and workflow say the same.
pub async fn failed(world: &World, run: &str, code: &str, status: &str) -> Value {
    let view = world.ended(run).await;
    assert_eq!(view["status"], "failed");
    let error = error_of(&view).expect("a reason");
    assert_eq!(error["code"], code, "{error}");
    // In the order of jsonb, which is stable.
    let keys: Vec<&String> = error.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["code", "stepId", "message"]);
    let row: Value = sqlx::query_scalar("SELECT error FROM app.runs WHERE id = $1")
        .bind(run)
        .fetch_one(&world.app)
        .await
        .expect("the row");
    assert_eq!(row, error);
    assert_eq!(workflow(world, run).await.2, status);
    error
}
