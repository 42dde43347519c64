//! What the engine's clients do to runs: a fork is a run of its own, and what they cancel, resume and delete shows in our
//! rows as the table of states has it.

use kodo_contract::{Intent, decode, parse_json};
use kodo_planner::fixture_key;
use serde_json::Value;

use crate::engine_clients::{cancel, delete, enqueue, fork, fork_as, resume};
use crate::evidence::{checkpointed, effects, error_of, fixtures, workflow};
use crate::interrupted::{FOR_EVER, abandoned, given_up, restart};
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
async fn a_fork_is_found_by_the_id_that_its_client_chose() {
    let world = World::apart("fork_named", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let like_a_run = format!("run_{}", "0f".repeat(16));
    for id in ["my-fork", "run_0", like_a_run.as_str(), &"f".repeat(256)] {
        fork_as(&world, &run, 2, Some(id)).await;
        let view = forked(&world, id, "succeeded").await;
        let is_run = view["runId"].as_str() == Some(id);
        assert_eq!(is_run, id == like_a_run, "{id}: {}", view["runId"]);
        assert_eq!(lineage(&world, id).await.0, run);
    }
    // One that a run has is not given to another one.
    let fork = fork(&world, &run, 2).await;
    let view = forked(&world, &fork, "succeeded").await;
    let taken = view["runId"].as_str().unwrap();
    fork_as(&world, &run, 2, Some(taken)).await;
    until("a run of its own", || async {
        let own =
            "SELECT count(*) FROM app.runs WHERE workflow_id LIKE 'run\\_%' AND id <> workflow_id
                   AND status = 'succeeded'";
        world.count(own).await == 2
    })
    .await;
    let unknown = world.client.get("/runs/no-fork").await.unwrap();
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn what_a_client_enqueues_that_is_no_run_ends_with_a_reason_and_offends_against_nothing() {
    let world = World::new("fork_foreign").await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let before = effects(&world, &run).await;
    let input = format!(r#"{{"runId":"{run}"}}"#);
    let long = "f".repeat(257);
    fork_as(&world, &run, 2, Some(&long)).await;
    enqueue(&world, "by hand", &run, &input, "").await;
    enqueue(
        &world,
        "unversioned",
        &run,
        &input,
        "application_version = NULL",
    )
    .await;
    enqueue(
        &world,
        "late",
        &run,
        &input,
        "priority = 7, workflow_timeout_ms = 100000",
    )
    .await;
    enqueue(&world, "garbage", &run, "garbage", "").await;
    enqueue(&world, "portable", &run, r#"{"positionalArgs":[1]}"#, "").await;
    for (id, code, says) in [
        (long.as_str(), "run_missing", "its id has 257 bytes"),
        ("by hand", "run_missing", "cannot enqueue it"),
        ("unversioned", "run_missing", "cannot enqueue it"),
        ("late", "run_missing", "cannot enqueue it"),
        ("garbage", "input_unreadable", "cannot be read"),
        ("portable", "input_unreadable", "cannot be read"),
    ] {
        until(&format!("the end of {id}, for a reason"), || async {
            let (status, error): (String, Option<String>) = sqlx::query_as(
                "SELECT status, error FROM dbos.workflow_status WHERE workflow_uuid = $1",
            )
            .bind(id)
            .fetch_one(&world.system)
            .await
            .unwrap();
            let error = error.unwrap_or_default();
            status == "ERROR" && error.contains(code) && error.contains(says)
        })
        .await;
    }
    // What has not begun, and maybe never does.
    let far = "status = 'DELAYED', delay_until_epoch_ms = 9000000000000";
    enqueue(&world, "delayed", &run, &input, far).await;
    enqueue(
        &world,
        "of another version",
        &run,
        &input,
        "application_version = 'x'",
    )
    .await;
    enqueue(
        &world,
        "nowhere",
        &run,
        &input,
        "queue_name = 'nobody polls it'",
    )
    .await;
    enqueue(
        &world,
        "cancelled",
        &run,
        &input,
        "queue_name = 'nobody polls it'",
    )
    .await;
    cancel(&world, "cancelled").await;
    assert_eq!(effects(&world, &run).await, before);
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_run_that_the_engine_gave_up_and_a_client_cancels_is_canceled_here_too() {
    let (world, run) = given_up("fork_gave_up", 0).await;
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
    assert_eq!(workflow(&world, &run).await.2, "ENQUEUED");
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

#[tokio::test]
async fn a_fork_with_a_bound_on_its_time_is_canceled_once_that_is_over() {
    let mut world = World::new("fork_timeout").await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    world.service.kill9().await.expect("kill");
    let fork = fork(&world, &run, 1).await;
    sqlx::query(
        "UPDATE dbos.workflow_status SET workflow_timeout_ms = 700 WHERE workflow_uuid = $1",
    )
    .bind(&fork)
    .execute(&world.system)
    .await
    .expect("a bound");
    let slow = world.options.clone().env("SBX_MOCK_DELAY_MS", FOR_EVER);
    world.restart(&slow).await;
    forked(&world, &fork, "canceled").await;
    assert_eq!(workflow(&world, &fork).await.2, "CANCELLED");
    assert_invariants_hold(&world).await;
}
