//! A step that two executions record, as a worker does that was taken for dead: the first row counts, and the second
//! one changes nothing. Whoever looks first whether it is recorded has not proved that.

use kodo_contract::{Phase, RunId, StepId};
use kodo_store::{Claim, ClaimedRun, NewArtifact, NewStep, Recorded, Store};
use serde_json::{Value, json};

use crate::support::{DEMO_INTENT, World};

/// All that a step's rows say.
async fn rows(world: &World, step: &StepId) -> Value {
    sqlx::query_scalar(
        "SELECT jsonb_build_object(
             'step', (SELECT jsonb_agg(s) FROM app.run_steps s WHERE s.step_id = $1),
             'artifacts', (SELECT jsonb_agg(a ORDER BY a.idx) FROM app.artifacts a WHERE a.step_id = $1))",
    )
    .bind(step.as_str())
    .fetch_one(&world.app)
    .await
    .unwrap()
}

fn step<'a>(
    run_id: &'a RunId,
    step_id: &'a StepId,
    epoch: i32,
    output: &'a Value,
    artifacts: &'a [NewArtifact],
) -> NewStep<'a> {
    NewStep {
        run_id,
        step_id,
        epoch,
        phase: Phase::Executing,
        output,
        shown: None,
        view_bytes: 0,
        trace_id: None,
        started_at: kodo_contract::now(),
        finished_at: kodo_contract::now(),
        artifacts,
        workspace: &[],
    }
}

/// A run that is over, and no service that could end a claim.
async fn finished(test: &str) -> (World, RunId, Store) {
    let mut world = World::new(test).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    world.service.kill9().await.expect("kill");
    let store = Store::new(&world.databases().app, 4);
    store.end_claims_of("kodo-0").await.unwrap();
    (world, RunId::parse(&run).unwrap(), store)
}

async fn claimed(store: &Store, run: &RunId, execution: &str) -> Option<ClaimedRun> {
    let workflow = run.workflow_id();
    let claim = store.claim_run(&workflow, "kodo-0", execution);
    match claim.await.unwrap() {
        Claim::Taken(claimed) => Some(claimed),
        Claim::Held => None,
        Claim::NoRun => panic!("no run"),
    }
}

#[tokio::test]
async fn a_step_that_is_recorded_again_stays_as_it_was_and_of_two_at_once_one_is_recorded() {
    let (world, run_id, store) = finished("recorded_once").await;
    let epoch = claimed(&store, &run_id, "one").await.unwrap().epoch;

    // Another result of a call that is recorded: with more artifacts, and with large ones.
    let recorded = StepId::tool(0);
    let before = rows(&world, &recorded).await;
    let other = json!({"other": true});
    let artifacts = [
        NewArtifact::inline("stdout", json!("other")),
        NewArtifact::inline("stderr", json!("other")),
        NewArtifact::inline("extra", json!("other")),
    ];
    let again = step(&run_id, &recorded, epoch, &other, &artifacts);
    assert_eq!(store.record_step(&again).await.unwrap(), Recorded::Before);
    let held = store.hold_content(&[]).await.unwrap();
    assert_eq!(held.record_step(&again).await.unwrap(), Recorded::Before);
    assert_eq!(rows(&world, &recorded).await, before);

    // Two executions that meet at a step which nobody has recorded.
    let fresh = StepId::tool(200);
    let (one, two) = (json!({"by": 1}), json!({"by": 2}));
    let (one, two) = (
        step(&run_id, &fresh, epoch, &one, &artifacts[..1]),
        step(&run_id, &fresh, epoch, &two, &artifacts[..1]),
    );
    let (one, two) = tokio::join!(store.record_step(&one), store.record_step(&two));
    let mut both = [one.unwrap(), two.unwrap()];
    both.sort_by_key(|it| *it == Recorded::Before);
    assert_eq!(both, [Recorded::Now, Recorded::Before]);
    let now = rows(&world, &fresh).await;
    assert_eq!(now["step"].as_array().unwrap().len(), 1, "{now:#}");
    assert_eq!(now["artifacts"].as_array().unwrap().len(), 1, "{now:#}");
}

#[tokio::test]
async fn of_all_executions_of_a_run_one_holds_its_claim_and_only_that_one_records_steps() {
    let (world, run_id, store) = finished("recorded_claim").await;
    let asked = (0..8).map(|n| {
        let (store, run_id) = (store.clone(), run_id.clone());
        async move { claimed(&store, &run_id, &n.to_string()).await }
    });
    let all = futures_util::future::join_all(asked).await;
    let first: Vec<ClaimedRun> = all.into_iter().flatten().collect();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(first[0].epoch, 2, "the run itself was the first execution");
    assert!(first[0].recorded.contains("plan") && first[0].recorded.contains("tool-001"));

    // The worker is taken for dead, and another execution is given the run.
    assert_eq!(store.end_claims_of("kodo-0").await.unwrap(), 1);
    let second = claimed(&store, &run_id, "second").await.unwrap();
    assert_eq!(second.epoch, 3);
    // Asked again, because the answer was lost.
    assert_eq!(claimed(&store, &run_id, "second").await, Some(second));
    let (fresh, output) = (StepId::tool(200), json!({}));
    let late = step(&run_id, &fresh, 2, &output, &[]);
    assert_eq!(store.record_step(&late).await.unwrap(), Recorded::Fenced);
    let held = store.hold_content(&[]).await.unwrap();
    assert_eq!(held.record_step(&late).await.unwrap(), Recorded::Fenced);
    assert_eq!(rows(&world, &fresh).await["step"], Value::Null);
    let now = step(&run_id, &fresh, 3, &output, &[]);
    assert_eq!(store.record_step(&now).await.unwrap(), Recorded::Now);

    // Whoever takes a claim away waits for a step that is being recorded under it.
    let recorded = StepId::tool(201);
    let mut recording = world.app.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM app.run_claims WHERE run_id = $1 AND epoch = 3 FOR SHARE")
        .bind(run_id.as_str())
        .execute(&mut *recording)
        .await
        .unwrap();
    let taken = tokio::spawn({
        let store = store.clone();
        async move { store.end_claims_of("kodo-0").await.unwrap() }
    });
    let step = step(&run_id, &recorded, 3, &output, &[]);
    assert_eq!(store.record_step(&step).await.unwrap(), Recorded::Now);
    assert!(!taken.is_finished());
    recording.commit().await.unwrap();
    assert_eq!(taken.await.unwrap(), 1);
}
