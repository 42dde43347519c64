//! A run that nobody begins although a worker has room: told in the log, by `kodo doctor` and by `kodo prove`. And nothing
//! that a worker awaits for itself keeps it from going on.

use crate::proof::{assert_invariants_hold, invariant, proof};
use crate::support::{OTHER_INTENT, World, until};
use crate::workflow_commands::kodo_on;

async fn logged(world: &World, text: &str) {
    until(text, || async { world.service.log().contains(text) }).await;
}

#[tokio::test]
async fn a_run_that_does_not_begin_beside_an_idle_worker_is_told_everywhere() {
    let world = World::new("stall_start").await;
    let intent = world.intent(OTHER_INTENT).await;
    // The engine cannot write a workflow's row; everybody can read.
    let mut blocker = world.system.begin().await.unwrap();
    sqlx::query("LOCK TABLE dbos.workflow_status IN EXCLUSIVE MODE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let run = world.run(&intent).await;
    logged(&world, "the engine does not answer to the start of a run").await;
    logged(
        &world,
        "an accepted run does not begin although this worker has room",
    )
    .await;
    let proof = proof(&world).await;
    let stranded = &invariant(&proof, "no_run_stranded")["violations"][0];
    assert_eq!(stranded["subject"], *run, "{proof:#}");
    until("the doctor's finding", || async {
        let told = kodo_on(&world, &["doctor"]).await.stdout;
        told.contains("1 queued") && told.contains("although kodo-0 is idle")
    })
    .await;
    blocker.rollback().await.unwrap();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_lock_that_holds_up_the_sweep_is_told_and_the_sweep_comes_again() {
    let world = World::new("stall_sweep").await;
    let intent = world.intent(OTHER_INTENT).await;
    let mut blocker = world.system.begin().await.unwrap();
    sqlx::query("LOCK TABLE dbos.workflow_status IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let run = world.run(&intent).await;
    logged(&world, "not done within 15s").await;
    blocker.rollback().await.unwrap();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}
