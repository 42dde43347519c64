//! What can never end well ends as failed, with its reason, instead of staying pending for ever.

use crate::evidence::{fixtures, step_versions};
use crate::interrupted::{abandoned, failed, restart, system};
use crate::support::{DEMO_INTENT, OTHER_INTENT, World};

#[tokio::test]
async fn a_workflow_whose_input_cannot_be_read_ends_as_failed() {
    let (mut world, run) = abandoned("rec_input").await;
    system(
        &world,
        "UPDATE dbos.workflow_status SET inputs = 'garbage' WHERE workflow_uuid = $1 AND status = 'PENDING'",
        &run,
    )
    .await;
    restart(&mut world).await;
    failed(&world, &run, "input_unreadable", "ERROR").await;
}

#[tokio::test]
async fn a_history_that_the_code_no_longer_matches_ends_the_run_as_failed() {
    let (mut world, run) = abandoned("rec_diverged").await;
    system(
        &world,
        "UPDATE dbos.operation_outputs SET function_name = 'tool-of-another-version'
         WHERE workflow_uuid = $1 AND function_name = 'plan'",
        &run,
    )
    .await;
    restart(&mut world).await;
    let error = failed(&world, &run, "workflow_diverged", "ERROR").await;
    let message = error["message"].as_str().expect("a sentence");
    assert!(
        message.contains("tool-of-another-version") && message.contains("plan"),
        "{message}"
    );
}

#[tokio::test]
async fn a_panic_in_a_step_ends_its_run_as_failed_and_leaves_the_process_alone() {
    let mut world = World::with("rec_panic", |options| {
        options
            .env("KODO_FAILPOINT", "panic:tool-002:before")
            .env("OC_FIXTURES_DIR", fixtures())
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    let error = failed(&world, &run, "panic", "ERROR").await;
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("tool-002:before"))
    );
    let steps: Vec<String> = step_versions(&world, &run).await.into_keys().collect();
    assert_eq!(steps, ["plan", "tool-001"]);
    // The demo intent's plan has one tool call, so this run never comes to that point.
    let other = world.intent(DEMO_INTENT).await;
    let other = world.run(&other).await;
    assert_eq!(world.ended(&other).await["status"], "succeeded");
    restart(&mut world).await;
    assert_eq!(
        world
            .client
            .get(&format!("/runs/{run}"))
            .await
            .expect("a view")
            .json()["status"],
        "failed",
        "a restart does not try it again"
    );
}

#[tokio::test]
async fn an_intent_that_no_longer_fits_its_schema_ends_its_run_as_failed() {
    let world = World::new("rec_gate2").await;
    let intent = world.intent(OTHER_INTENT).await;
    sqlx::query("UPDATE app.intents SET payload = payload || '{\"unknown\": 1}' WHERE id = $1")
        .bind(&intent)
        .execute(&world.app)
        .await
        .expect("an update");
    let run = world.run(&intent).await;
    let error = failed(&world, &run, "stored_intent_invalid", "ERROR").await;
    assert_eq!(error["stepId"], "plan");
}
