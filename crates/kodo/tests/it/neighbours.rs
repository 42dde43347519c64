//! Product databases beside and after one another on one system database, and ids that belong to somebody.

use kodo_dev::harness::Service;
use tokio::process::Command;

use crate::evidence::checkpointed;
use crate::interrupted::FOR_EVER;
use crate::support::{DEMO_INTENT, OTHER_INTENT, World, program, text, until};

#[tokio::test]
async fn two_product_databases_share_a_system_database_and_leave_each_others_runs_alone() {
    let mut world = World::apart("nb_one", |options| {
        options.env("SBX_MOCK_DELAY_MS", FOR_EVER)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    checkpointed(&world, &run, "plan").await;
    world.service.kill9().await.unwrap();

    // Its first migration makes it another instance; the name makes it go with this test's databases.
    let other = format!("kodo_it_{}_nb_other_app", std::process::id());
    let beside = world
        .options
        .clone()
        .env("APP_DB_NAME", &other)
        .env("SBX_MOCK_DELAY_MS", 0);
    let neighbour = Service::start(&beside).await.unwrap();
    let client = neighbour.client();
    let stored = client.post("/intents", DEMO_INTENT).await.unwrap();
    let path = format!("/intents/{}/run", text(&stored, "intentId"));
    let started = client.post(&path, "").await.unwrap();
    let path = format!("/runs/{}", text(&started, "runId"));
    until("the neighbour's own run", || async {
        text(&client.get(&path).await.unwrap(), "status") == "succeeded"
    })
    .await;
    let (status, attempts): (String, i64) = sqlx::query_as(
        "SELECT status, recovery_attempts FROM dbos.workflow_status WHERE workflow_uuid = $1",
    )
    .bind(&run)
    .fetch_one(&world.system)
    .await
    .unwrap();
    assert_eq!(
        (status.as_str(), attempts),
        ("PENDING", 1),
        "not the neighbour's to take"
    );

    let options = world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    world.restart(&options).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn after_a_reset_of_the_product_database_the_same_system_database_serves_on() {
    let mut world = World::apart("nb_reset", |options| options).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    world.service.stop().await.unwrap();
    let reset = Command::new(program())
        .args(["db", "reset"])
        .envs(world.databases().environment())
        .output()
        .await
        .unwrap();
    assert!(reset.status.success(), "{reset:?}");

    world.service = Service::start(&world.options).await.unwrap();
    world.client = world.service.client();
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn a_crash_demo_cannot_take_the_id_of_a_run_that_waits() {
    let world = World::with("nb_taken", |options| {
        options
            .env("MAX_CONCURRENT_RUNS", 1)
            .env("SBX_MOCK_DELAY_MS", FOR_EVER)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    world.run(&intent).await;
    let waiting = world.run(&intent).await;
    let answer = world
        .client
        .post(&format!("/crashdemo?wf={waiting}"), "")
        .await
        .unwrap();
    assert_eq!(answer.status, 409);
    assert_eq!(
        answer.text(),
        r#"{"error":"workflow id belongs to another workflow"}"#
    );
    assert_eq!(world.count("SELECT count(*) FROM app.marks").await, 0);
    let view = world.client.get(&format!("/runs/{waiting}")).await.unwrap();
    assert_eq!(text(&view, "status"), "queued");
}
