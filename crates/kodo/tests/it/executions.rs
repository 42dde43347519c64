//! A run is executed once at a time in the whole deployment, whatever the engine's clients write into its tables.

use std::path::PathBuf;

use kodo_dev::harness::Service;

use crate::engine_clients::{cancel, delete, resume};
use crate::evidence::{checkpointed, recorded, workflow};
use crate::interrupted::FOR_EVER;
use crate::proof::assert_invariants_hold;
use crate::scratch::Scratch;
use crate::support::{OTHER_INTENT, World, until};

/// Longer than the pause between two looks at the engine's queue: a run is still in this tool call when it is seen there.
const TOOL_MS: u64 = 3000;

/// A service that traces its steps, and a run that is in its first tool call.
struct Busy {
    world: World,
    run: String,
    trace: PathBuf,
    _scratch: Scratch,
}

impl Busy {
    async fn new(test: &str, tool_ms: u64) -> Self {
        let scratch = Scratch::new(test);
        let trace = scratch.path().join("trace");
        let world = World::with(test, |options| {
            options
                .env("SBX_MOCK_DELAY_MS", tool_ms)
                .env("KODO_FAILPOINT_TRACE", trace.display())
        })
        .await;
        let intent = world.intent(OTHER_INTENT).await;
        let run = world.run(&intent).await;
        checkpointed(&world, &run, "plan").await;
        Self {
            world,
            run,
            trace,
            _scratch: scratch,
        }
    }

    /// How often a step has begun.
    fn begun(&self, step: &str) -> usize {
        let point = format!("{step}:before");
        let trace = std::fs::read_to_string(&self.trace).expect("a trace; is this a debug build?");
        trace.lines().filter(|line| *line == point).count()
    }

    /// Workers and ends of the run's executions, in order.
    async fn executions(&self) -> Vec<(String, bool)> {
        sqlx::query_as(
            "SELECT worker, ended_at IS NOT NULL FROM app.run_claims WHERE run_id = $1 ORDER BY epoch",
        )
        .bind(&self.run)
        .fetch_all(&self.world.app)
        .await
        .expect("claims")
    }

    /// A client of the engine puts the run into the queue, and whoever looks there finds that it is carried out.
    async fn resumed(&self) {
        resume(&self.world, &self.run).await;
        until("the run to be taken out of the queue", || async {
            workflow(&self.world, &self.run).await.2 == "PENDING"
        })
        .await;
    }

    /// The run succeeds, each of its steps having begun once.
    async fn succeeds(&self) {
        until("the run's success", || async {
            self.world
                .count("SELECT count(*) FROM app.runs WHERE status = 'succeeded'")
                .await
                == 1
        })
        .await;
        for step in ["plan", "tool-001", "tool-002", "tool-003"] {
            assert_eq!(self.begun(step), 1, "{step}: {}", self.world.service.log());
        }
        let log = self.world.service.log();
        assert!(!log.contains("did not run; resuming it"), "{log}");
        assert!(!log.contains("already recorded"), "{log}");
        assert_invariants_hold(&self.world).await;
    }
}

#[tokio::test]
async fn a_run_that_is_resumed_while_it_runs_is_executed_once() {
    let busy = Busy::new("exec_resume", TOOL_MS).await;
    busy.resumed().await;
    // Again, and the run may end while it is in the queue.
    resume(&busy.world, &busy.run).await;
    busy.succeeds().await;
    assert_eq!(busy.executions().await, [("kodo-0".to_owned(), true)]);
}

#[tokio::test]
async fn a_run_that_is_cancelled_and_resumed_within_a_tool_call_is_executed_once() {
    let busy = Busy::new("exec_cancel", TOOL_MS).await;
    cancel(&busy.world, &busy.run).await;
    busy.resumed().await;
    busy.succeeds().await;
}

#[tokio::test]
async fn a_run_whose_workflow_is_deleted_in_its_middle_goes_on_from_what_is_recorded() {
    let busy = Busy::new("exec_delete", TOOL_MS).await;
    let other = Service::start(&busy.world.options)
        .await
        .expect("another worker");
    delete(&busy.world, &busy.run).await;
    // Each looks for runs without a workflow, and one of them does not know that this one is under way.
    until("the run's success", || async {
        let running = "SELECT count(*) FROM app.runs WHERE status = 'succeeded'";
        busy.world.count(running).await == 1
    })
    .await;
    // The call was under way when the workflow went, and was recorded; it was not made again.
    let by: Vec<i32> = sqlx::query_scalar("SELECT epoch FROM app.run_steps ORDER BY step_id")
        .fetch_all(&busy.world.app)
        .await
        .unwrap();
    assert_eq!(by[..2], [1, 1], "{by:?}");
    assert_invariants_hold(&busy.world).await;
    drop(other);
}

#[tokio::test]
async fn a_run_that_was_resumed_at_another_worker_is_carried_out_there_once_its_own_is_killed() {
    let mut busy = Busy::new("exec_heir", FOR_EVER).await;
    let quick = busy.world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    let heir = Service::start(&quick).await.expect("another worker");
    // Either of the two may find it in the queue.
    busy.resumed().await;
    assert_eq!(busy.executions().await, [("kodo-0".to_owned(), false)]);
    busy.world.service.kill9().await.expect("kill");
    recorded(&busy.world, &busy.run, "tool-003").await;
    until("the run's success", || async {
        let over = "SELECT count(*) FROM app.runs WHERE status = 'succeeded'";
        busy.world.count(over).await == 1
    })
    .await;
    let by: Vec<(String, i32)> =
        sqlx::query_as("SELECT step_id, epoch FROM app.run_steps ORDER BY step_id")
            .fetch_all(&busy.world.app)
            .await
            .unwrap();
    let expected = [
        ("plan", 1),
        ("tool-001", 2),
        ("tool-002", 2),
        ("tool-003", 2),
    ];
    assert_eq!(by, expected.map(|(step, epoch)| (step.to_owned(), epoch)));
    let executions = busy.executions().await;
    assert_eq!(
        executions[..2],
        [("kodo-0".to_owned(), true), ("kodo-1".to_owned(), true)]
    );
    assert_invariants_hold(&busy.world).await;
    drop(heir);
}

#[tokio::test]
async fn a_run_that_waited_for_room_and_was_carried_out_elsewhere_is_not_begun_again() {
    let mut world = World::with("exec_stale", |options| {
        options
            .env("SBX_MOCK_DELAY_MS", 2_000)
            .env("MAX_CONCURRENT_RUNS", 1)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let busy = world.run(&intent).await;
    checkpointed(&world, &busy, "plan").await;
    // It waits in this worker's memory, and the other one finds its row.
    let waits = world.run(&intent).await;
    let quick = world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    let other = Service::start(&quick).await.expect("another worker");
    assert_eq!(world.ended(&waits).await["status"], "succeeded");
    assert_eq!(world.ended(&busy).await["status"], "succeeded");
    // The claim of a look that was too late is ended.
    until("no open claim", || async {
        let open = "SELECT count(*) FROM app.run_claims WHERE ended_at IS NULL";
        world.count(open).await == 0
    })
    .await;
    assert!(world.service.stop().await.expect("an end").success());
    let log = world.service.log();
    let begun = |line: &&str| line.contains("run started") && line.contains(&waits);
    assert_eq!(log.lines().filter(begun).count(), 0, "{log}");
    let late = "SELECT count(*) FROM app.run_steps WHERE epoch <> 1";
    assert_eq!(world.count(late).await, 0);
    assert_invariants_hold(&world).await;
    drop(other);
}
