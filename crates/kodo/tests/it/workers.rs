//! Several processes on the same databases: each has its own work, and nobody's work is lost or done twice.

use std::time::{Duration, Instant};

use kodo_dev::harness::{Service, ServiceOptions};

use crate::evidence::{checkpointed, step_versions, workflow};
use crate::interrupted::FOR_EVER;
use crate::proof::assert_invariants_hold;
use crate::support::{OTHER_INTENT, World, text, until};

/// Two sweep periods (`SWEEP_EVERY` is 2 s), the engine's queue poll of a second, and room for a busy machine; less
/// than `TAKEOVER_AFTER`, which is for a worker that may live.
const COUPLE_OF_SWEEPS: Duration = Duration::from_millis(9_500);

/// A world whose worker never comes to the end of a tool call.
async fn stuck(test: &str) -> World {
    World::with(test, |options| {
        options
            .env("SBX_MOCK_DELAY_MS", FOR_EVER)
            .env("DRAIN_GRACE_MS", 300)
            .env("MAX_CONCURRENT_RUNS", 2)
    })
    .await
}

/// Another worker on the same databases, which takes no time for a tool call.
async fn second(options: &ServiceOptions) -> Service {
    let quick = options.clone().env("SBX_MOCK_DELAY_MS", 0);
    Service::start(&quick).await.expect("a second worker")
}

/// Runs of one intent, all started at `world.service`.
async fn runs(world: &World, count: usize) -> Vec<String> {
    let intent = world.intent(OTHER_INTENT).await;
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(world.run(&intent).await);
    }
    runs
}

/// Waits for the end of each, and sees that each step and each checkpoint is there once.
async fn all_succeed(world: &World, runs: &[String]) {
    for run in runs {
        // By rows alone: the service that `world` talks to may be gone.
        until(&format!("the end of {run}"), || async {
            let status: String = sqlx::query_scalar("SELECT status FROM app.runs WHERE id = $1")
                .bind(run)
                .fetch_one(&world.app)
                .await
                .expect("the run");
            status == "succeeded"
        })
        .await;
        assert_eq!(step_versions(world, run).await.len(), 4);
        assert_eq!(workflow(world, run).await.2, "SUCCESS");
    }
    // A step that ran twice has waited twice: the second attempt to record it leaves no row, but the engine's
    // refusal of a second checkpoint shows in the log of whoever lost.
    let log = world.service.log();
    assert!(!log.contains("already recorded"), "{log}");
}

async fn executors(world: &World, runs: &[String]) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for run in runs {
        let (executor, attempts, _) = workflow(world, run).await;
        found.push((executor, attempts));
    }
    found
}

/// Waits until the second worker has all of these.
async fn taken_over(world: &World, runs: &[String]) {
    until("the takeover", || async {
        let executors = executors(world, runs).await;
        executors.iter().all(|(executor, _)| executor == "kodo-1")
    })
    .await;
}

#[tokio::test]
async fn a_second_worker_takes_another_slot_and_leaves_the_firsts_work_alone() {
    let world = World::with("wk_two", |options| options.env("SBX_MOCK_DELAY_MS", 1000)).await;
    let first = runs(&world, 3).await;
    for run in &first {
        checkpointed(&world, run, "plan").await;
    }
    // It looks at the first one's work as soon as it runs, and every two seconds from there.
    let other = Service::start(&world.options)
        .await
        .expect("a second worker");
    let slots = "SELECT count(DISTINCT holder) FROM app.workers WHERE slot IN (0, 1)";
    assert_eq!(world.count(slots).await, 2);
    let intent = world.intent(OTHER_INTENT).await;
    let path = format!("/intents/{intent}/run");
    let answer = other.client().post(&path, "").await;
    let own = vec![text(&answer.expect("an answer"), "runId")];
    all_succeed(&world, &first).await;
    all_succeed(&world, &own).await;
    let theirs = vec![("kodo-0".to_owned(), 1); 3];
    assert_eq!(executors(&world, &first).await, theirs);
    assert_eq!(executors(&world, &own).await, [("kodo-1".to_owned(), 1)]);
    assert!(!other.log().contains("took over"), "{}", other.log());
}

#[tokio::test]
async fn the_work_of_a_killed_worker_is_taken_over_by_another_within_a_couple_of_sweeps() {
    let mut world = stuck("wk_kill").await;
    let mine = runs(&world, 2).await;
    for run in &mine {
        checkpointed(&world, run, "plan").await;
    }
    let other = second(&world.options).await;
    let before = step_versions(&world, &mine[0]).await;
    world.service.kill9().await.expect("kill");
    let killed = Instant::now();
    taken_over(&world, &mine).await;
    assert!(
        killed.elapsed() < COUPLE_OF_SWEEPS,
        "{:?}",
        killed.elapsed()
    );
    all_succeed(&world, &mine).await;
    let after = step_versions(&world, &mine[0]).await;
    assert_eq!(before["plan"], after["plan"]);
    assert!(other.log().contains("took over"), "{}", other.log());
    assert_invariants_hold(&world).await;
}

#[tokio::test]
async fn a_clean_exit_hands_the_work_to_the_other_worker_at_once() {
    let mut world = stuck("wk_term").await;
    let mine = runs(&world, 2).await;
    for run in &mine {
        checkpointed(&world, run, "plan").await;
    }
    let other = second(&world.options).await;
    assert!(world.service.stop().await.expect("an exit").success());
    let gone = Instant::now();
    taken_over(&world, &mine).await;
    assert!(gone.elapsed() < COUPLE_OF_SWEEPS, "{:?}", gone.elapsed());
    all_succeed(&world, &mine).await;
    assert!(other.log().contains("took over"), "{}", other.log());
}

#[tokio::test]
async fn runs_beyond_one_workers_room_are_picked_up_by_another_with_room() {
    let mut world = stuck("wk_room").await;
    let all = runs(&world, 4).await;
    let (here, waiting) = all.split_at(2);
    for run in here {
        checkpointed(&world, run, "plan").await;
    }
    let workflows: i64 = sqlx::query_scalar("SELECT count(*) FROM dbos.workflow_status")
        .fetch_one(&world.system)
        .await
        .expect("workflows");
    assert_eq!(workflows, 2, "no room for the others here");
    let _other = second(&world.options).await;
    all_succeed(&world, waiting).await;
    let (mine, theirs) = (("kodo-0".to_owned(), 1), ("kodo-1".to_owned(), 1));
    assert_eq!(executors(&world, waiting).await, vec![theirs; 2]);
    assert_eq!(executors(&world, here).await, vec![mine; 2]);
    // Nobody helps with what is under way, for as long as its worker lives.
    world.service.kill9().await.expect("kill");
    all_succeed(&world, here).await;
}

#[tokio::test]
async fn one_worker_with_little_room_still_does_everything() {
    let world = World::with("wk_little", |options| options.env("MAX_CONCURRENT_RUNS", 1)).await;
    let all = runs(&world, 12).await;
    all_succeed(&world, &all).await;
    assert_eq!(
        executors(&world, &all).await,
        vec![("kodo-0".to_owned(), 1); 12]
    );
}

#[tokio::test]
async fn a_worker_whose_slot_connection_is_cut_keeps_its_slot_and_its_work() {
    let world = World::with("wk_cut", |options| options.env("SBX_MOCK_DELAY_MS", 1200)).await;
    let other = Service::start(&world.options)
        .await
        .expect("a second worker");
    let mine = runs(&world, 2).await;
    checkpointed(&world, &mine[0], "plan").await;
    let cut: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l
         WHERE l.locktype = 'advisory' AND l.objid = 0 AND l.database = (
             SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .fetch_one(&world.system)
    .await
    .expect("pg_terminate_backend");
    assert_eq!(cut, 1, "the holder of slot 0");
    until("the slot's lock to be held again", || async {
        world.service.log().contains("holds the slot again")
    })
    .await;
    all_succeed(&world, &mine).await;
    assert_eq!(
        executors(&world, &mine).await,
        vec![("kodo-0".to_owned(), 1); 2]
    );
    assert!(!other.log().contains("took over"), "{}", other.log());
    let holders: Vec<(i32, bool)> =
        sqlx::query_as("SELECT slot, holder IS NOT NULL FROM app.workers ORDER BY slot")
            .fetch_all(&world.app)
            .await
            .expect("workers");
    assert_eq!(holders, [(0, true), (1, true)]);
}

#[tokio::test]
async fn a_restarted_worker_takes_its_slot_again_and_finishes_its_own_work() {
    let mut world = stuck("wk_again").await;
    let mine = runs(&world, 2).await;
    for run in &mine {
        checkpointed(&world, run, "plan").await;
    }
    let quick = world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    world.restart(&quick).await;
    all_succeed(&world, &mine).await;
    assert_eq!(
        executors(&world, &mine).await,
        vec![("kodo-0".to_owned(), 2); 2]
    );
    assert_invariants_hold(&world).await;
}
