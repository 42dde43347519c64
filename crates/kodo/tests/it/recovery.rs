//! An accepted run always ends, and says why: whatever was lost, broken or changed behind the service's back.

use kodo_contract::RunId;

use crate::engine_clients::{cancel, resume};
use crate::evidence::{error_of, evidence, step_versions, workflow};
use crate::interrupted::{abandoned, failed, given_up, interrupted, restart, system};
use crate::proof::assert_invariants_hold;
use crate::support::{OTHER_INTENT, World, until};

#[tokio::test]
async fn a_run_without_a_workflow_is_started_at_boot_and_while_the_service_runs() {
    let mut world = World::new("rec_orphan").await;
    let intent = world.intent(OTHER_INTENT).await;
    let usual = world.run(&intent).await;
    world.ended(&usual).await;
    let usual = evidence(&world, &usual).await;
    // As a crash between storing a run and starting it leaves it.
    let store = async |world: &World| {
        let run = RunId::generate().into_string();
        sqlx::query("INSERT INTO app.runs (id, intent_id, workflow_id) VALUES ($1, $2, $1)")
            .bind(&run)
            .bind(&intent)
            .execute(&world.app)
            .await
            .expect("a run");
        run
    };
    world.service.kill9().await.expect("kill");
    let before_boot = store(&world).await;
    restart(&mut world).await;
    let after_boot = store(&world).await;
    for run in [before_boot, after_boot] {
        assert_eq!(world.ended(&run).await["status"], "succeeded");
        assert_eq!(evidence(&world, &run).await, usual);
    }
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_run_cancelled_from_outside_is_canceled_and_goes_on_when_it_is_resumed() {
    let (mut world, run) = interrupted("rec_cancel", 1500).await;
    cancel(&world, &run).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "canceled");
    assert_eq!(error_of(&view), None, "a cancelled run did not fail");
    let before = step_versions(&world, &run).await;
    assert!(!before.contains_key("tool-003"), "{before:?}");

    restart(&mut world).await;
    assert_eq!(
        world.ended(&run).await["status"],
        "canceled",
        "a restart changes nothing"
    );
    resume(&world, &run).await;
    until("the run to be open again", || async {
        world
            .count("SELECT count(*) FROM app.runs WHERE status <> 'canceled'")
            .await
            == 1
    })
    .await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded");
    let after = step_versions(&world, &run).await;
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|(step, version)| after[step] == *version));
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_waiting_run_that_is_cancelled_while_no_worker_lives_is_canceled_at_boot() {
    let (mut world, run) = abandoned("rec_cancel_dead").await;
    cancel(&world, &run).await;
    restart(&mut world).await;
    assert_eq!(world.ended(&run).await["status"], "canceled");
}

#[tokio::test]
async fn a_run_recovered_too_often_fails_and_its_reason_is_gone_once_it_is_resumed() {
    let (world, run) = given_up("rec_often", 0).await;
    // It ends before any sweep could see it run.
    resume(&world, &run).await;
    succeeds_without_a_reason(&world, &run).await;
}

#[tokio::test]
async fn a_given_up_run_that_is_resumed_and_takes_its_time_says_that_it_runs() {
    let (world, run) = given_up("rec_often_slow", 1200).await;
    resume(&world, &run).await;
    until("the run to be open again", || async {
        let view = world
            .client
            .get(&format!("/runs/{run}"))
            .await
            .expect("a view")
            .json();
        view["status"] == "running" && error_of(&view).is_none()
    })
    .await;
    succeeds_without_a_reason(&world, &run).await;
}

async fn succeeds_without_a_reason(world: &World, run: &str) {
    until("the resumed run's success", || async {
        world
            .count("SELECT count(*) FROM app.runs WHERE status = 'succeeded'")
            .await
            == 1
    })
    .await;
    let view = world.ended(run).await;
    assert_eq!(error_of(&view), None);
    assert_eq!(view["steps"].as_array().map(Vec::len), Some(4));
    let reasons = world.count("SELECT count(*) FROM app.runs WHERE error IS NOT NULL");
    assert_eq!(reasons.await, 0);
    assert_eq!(workflow(world, run).await.2, "SUCCESS");
    assert_invariants_hold(world).await;
}

#[tokio::test]
async fn a_resumed_run_that_fails_again_says_why_it_failed_last() {
    let (world, run) = given_up("rec_again", 0).await;
    system(
        &world,
        "UPDATE dbos.operation_outputs SET function_name = 'tool-of-another-version'
         WHERE workflow_uuid = $1 AND function_name = 'plan'",
        &run,
    )
    .await;
    resume(&world, &run).await;
    until("the newer reason", || async {
        let errors = "SELECT count(*) FROM app.runs WHERE error->>'code' = 'workflow_diverged'";
        world.count(errors).await == 1
    })
    .await;
    failed(&world, &run, "workflow_diverged", "ERROR").await;
}
