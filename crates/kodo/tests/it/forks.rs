//! What the engine's clients do to runs: a fork is a run of its own, and what they cancel, resume and delete shows in our
//! rows as the table of states has it.

use kodo_contract::{Intent, decode, parse_json};
use kodo_planner::fixture_key;
use serde_json::Value;

use crate::engine_clients::{cancel, delete, fork, resume};
use crate::evidence::{checkpointed, effects, error_of, fixtures, workflow};
use crate::interrupted::{FOR_EVER, abandoned, failed, restart, system};
use crate::proof::assert_invariants_hold;
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, OTHER_INTENT, World, text, until};

/// The run of a fork, once it has this status: its view.
async fn forked(world: &World, fork: &str, status: &str) -> Value {
    until(&format!("the fork {fork} to be {status}"), || async {
        let found: Option<String> =
            sqlx::query_scalar("SELECT status FROM app.runs WHERE workflow_id = $1")
                .bind(fork)
                .fetch_optional(&world.app)
                .await
                .expect("the fork's run");
        found.as_deref() == Some(status)
    })
    .await;
    let answer = world.client.get(&format!("/runs/{fork}")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let by_id = format!("/runs/{}", text(&answer, "runId"));
    let again = world.client.get(&by_id).await.unwrap();
    assert_eq!(answer.text(), again.text());
    answer.json()
}

/// Source and first step of a fork.
async fn lineage(world: &World, fork: &str) -> (String, String) {
    sqlx::query_as("SELECT forked_from, from_step FROM app.runs WHERE workflow_id = $1")
        .bind(fork)
        .fetch_one(&world.app)
        .await
        .expect("the fork's run")
}

#[tokio::test]
async fn a_fork_is_a_run_of_its_own_that_takes_over_what_it_does_not_do_again() {
    let world = World::apart("fork_own", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let before = effects(&world, &run).await;

    for (step, from) in [(0, "plan"), (2, "tool-002"), (9, "tool-004")] {
        let fork = fork(&world, &run, step).await;
        let view = forked(&world, &fork, "succeeded").await;
        let id = view["runId"].as_str().unwrap();
        assert!(id.starts_with("run_") && id != run, "{id}");
        assert_eq!(lineage(&world, &fork).await, (run.clone(), from.to_owned()));
        assert_eq!(view["steps"].as_array().map(Vec::len), Some(4), "{view:#}");
        let artifacts = view["artifacts"].as_array().unwrap();
        let own = format!("artifact://{id}/");
        assert!(
            artifacts
                .iter()
                .all(|it| it["uri"].as_str().unwrap().starts_with(&own))
        );
        // Only what was done again has an execution.
        let again = world
            .client
            .get(&format!("/runs/{fork}/artifacts"))
            .await
            .unwrap();
        assert_eq!(again.json()["runId"], id);
    }
    // A fork of a fork, and both before anybody has seen the first.
    let first = fork(&world, &run, 1).await;
    let second = fork(&world, &first, 1).await;
    forked(&world, &second, "succeeded").await;
    let first = forked(&world, &first, "succeeded").await;
    assert_eq!(lineage(&world, &second).await.0, first["runId"]);
    assert_eq!(
        effects(&world, &run).await,
        before,
        "the source is as it was"
    );
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_fork_of_a_running_run_and_the_run_each_do_their_own_calls() {
    let world = World::with("fork_running", |options| {
        options.env("SBX_MOCK_DELAY_MS", 1500)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    checkpointed(&world, &run, "plan").await;
    let fork = fork(&world, &run, 1).await;
    let view = forked(&world, &fork, "succeeded").await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    let own: Vec<(String, i64)> = sqlx::query_as(
        "SELECT run_id, count(*) FROM app.run_steps WHERE epoch = 1 GROUP BY run_id ORDER BY run_id",
    )
    .fetch_all(&world.app)
    .await
    .unwrap();
    let fork = view["runId"].as_str().unwrap().to_owned();
    assert_eq!(own, [(run, 4), (fork, 3)]);
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_fork_of_a_failed_run_succeeds_once_the_cause_is_mended_and_the_run_stays_failed() {
    let scratch = Scratch::new("fork_failed");
    let intent: Intent = decode(&parse_json(DEMO_INTENT.as_bytes()).unwrap()).unwrap();
    let default = std::fs::read_to_string(format!("{}/default.json", fixtures())).unwrap();
    scratch.file("default.json", &default);
    let broken = scratch.file(&format!("{}.json", fixture_key(&intent, 424_242)), "{}");
    let mut world = World::with("fork_failed", |options| {
        options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", 424_242)
    })
    .await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "failed");
    let reason = error_of(&view);
    std::fs::remove_file(broken).unwrap();
    // A service may keep the fixtures that it has read.
    let options = world.options.clone();
    world.restart(&options).await;

    let fork = fork(&world, &run, 0).await;
    let view = forked(&world, &fork, "succeeded").await;
    assert_eq!(error_of(&view), None);
    let view = world.ended(&run).await;
    assert_eq!(
        (view["status"].as_str(), error_of(&view)),
        (Some("failed"), reason)
    );
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_fork_that_is_cancelled_before_anybody_begins_it_is_a_canceled_run() {
    let (mut world, run) = abandoned("fork_canceled").await;
    let fork = fork(&world, &run, 1).await;
    cancel(&world, &fork).await;
    restart(&mut world).await;
    forked(&world, &fork, "canceled").await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    // And it goes on when it is resumed.
    resume(&world, &fork).await;
    forked(&world, &fork, "succeeded").await;
    // A fork whose workflow is deleted in its middle begins anew, as every accepted run does.
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_workflow_that_belongs_to_no_run_and_is_no_fork_of_one_fails_and_says_so() {
    let world = World::new("fork_foreign").await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let before = effects(&world, &run).await;
    // As `DBOSClient.enqueue` would with the input of a run.
    system(
        &world,
        "INSERT INTO dbos.workflow_status
             (workflow_uuid, status, name, application_version, inputs, serialization, queue_name, application_name)
         SELECT 'by hand', 'ENQUEUED', name, application_version, inputs, serialization, '_dbos_internal_queue',
                application_name
         FROM dbos.workflow_status WHERE workflow_uuid = $1",
        &run,
    )
    .await;
    until("its end, for a reason", || async {
        let error: Option<String> = sqlx::query_scalar(
            "SELECT error FROM dbos.workflow_status WHERE workflow_uuid = 'by hand'",
        )
        .fetch_one(&world.system)
        .await
        .unwrap();
        error.is_some_and(|error| error.contains("run_missing"))
    })
    .await;
    assert_eq!(effects(&world, &run).await, before);
}

#[tokio::test]
async fn a_run_that_the_engine_gave_up_and_a_client_cancels_is_canceled_here_too() {
    let (mut world, run) = abandoned("fork_gave_up").await;
    system(
        &world,
        "UPDATE dbos.workflow_status SET recovery_attempts = 1000 WHERE workflow_uuid = $1",
        &run,
    )
    .await;
    restart(&mut world).await;
    failed(
        &world,
        &run,
        "recovery_exhausted",
        "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
    )
    .await;
    cancel(&world, &run).await;
    until("the run to be canceled", || async {
        world
            .count("SELECT count(*) FROM app.runs WHERE status = 'canceled' AND error IS NULL")
            .await
            == 1
    })
    .await;
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_resumed_run_that_waits_for_room_is_not_shown_as_canceled() {
    let mut world = World::with("fork_room", |options| {
        options
            .env("SBX_MOCK_DELAY_MS", FOR_EVER)
            .env("MAX_CONCURRENT_RUNS", 1)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    checkpointed(&world, &run, "plan").await;
    cancel(&world, &run).await;
    world.ended(&run).await;
    let options = world.options.clone();
    world.restart(&options).await;
    let busy = world.run(&intent).await;
    checkpointed(&world, &busy, "plan").await;
    resume(&world, &run).await;
    until("the run to be open again", || async {
        let open = "SELECT count(*) FROM app.runs WHERE status = 'running'";
        world.count(open).await == 2
    })
    .await;
    assert_eq!(workflow(&world, &run).await.2, "PENDING");
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn what_has_ended_may_be_deleted_in_the_engine_and_stays_as_it_is_here() {
    let mut world = World::with("fork_deleted", |options| options.env("WF_SLEEP_MS", 0)).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    let view = world.ended(&run).await;
    world.client.post("/crashdemo?wf=demo", "").await.unwrap();
    until("the crash demo's end", || async {
        let over: Option<String> = sqlx::query_scalar(
            "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = 'demo'",
        )
        .fetch_optional(&world.system)
        .await
        .unwrap();
        over.as_deref() == Some("SUCCESS")
    })
    .await;
    // A fork that is cancelled before a worker has begun it.
    world.service.kill9().await.expect("kill");
    let fork = fork(&world, &run, 1).await;
    cancel(&world, &fork).await;
    restart(&mut world).await;
    forked(&world, &fork, "canceled").await;
    for ended in [run.as_str(), "demo", &fork] {
        delete(&world, ended).await;
    }
    assert_invariants_hold(&world).await;
    assert_eq!(world.ended(&run).await, view);
}
