//! A step that two executions record, as a worker does that was taken for dead: the first row counts, and the second
//! one changes nothing. Whoever looks first whether it is recorded has not proved that.

use kodo_contract::{Phase, RunId, StepId};
use kodo_store::{NewArtifact, NewStep, Recorded, Store};
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
    output: &'a Value,
    artifacts: &'a [NewArtifact],
) -> NewStep<'a> {
    NewStep {
        run_id,
        step_id,
        phase: Phase::Executing,
        output,
        trace_id: None,
        started_at: kodo_contract::now(),
        finished_at: kodo_contract::now(),
        artifacts,
    }
}

#[tokio::test]
async fn a_step_that_is_recorded_again_stays_as_it_was_and_of_two_at_once_one_is_recorded() {
    let world = World::new("recorded_once").await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let run_id = RunId::parse(&run).unwrap();
    let store = Store::new(&world.databases().app, 4);

    // Another result of a call that is recorded: with more artifacts, and with large ones.
    let recorded = StepId::tool(0);
    let before = rows(&world, &recorded).await;
    let other = json!({"other": true});
    let artifacts = [
        NewArtifact::inline("stdout", json!("other")),
        NewArtifact::inline("stderr", json!("other")),
        NewArtifact::inline("extra", json!("other")),
    ];
    let again = step(&run_id, &recorded, &other, &artifacts);
    assert_eq!(store.record_step(&again).await.unwrap(), Recorded::Before);
    let held = store.hold_content(&[]).await.unwrap();
    assert_eq!(held.record_step(&again).await.unwrap(), Recorded::Before);
    assert_eq!(rows(&world, &recorded).await, before);

    // Two executions that meet at a step which nobody has recorded.
    let fresh = StepId::tool(200);
    let (one, two) = (json!({"by": 1}), json!({"by": 2}));
    let (one, two) = (
        step(&run_id, &fresh, &one, &artifacts[..1]),
        step(&run_id, &fresh, &two, &artifacts[..1]),
    );
    let (one, two) = tokio::join!(store.record_step(&one), store.record_step(&two));
    let mut both = [one.unwrap(), two.unwrap()];
    both.sort_by_key(|it| *it == Recorded::Before);
    assert_eq!(both, [Recorded::Now, Recorded::Before]);
    let now = rows(&world, &fresh).await;
    assert_eq!(now["step"].as_array().unwrap().len(), 1, "{now:#}");
    assert_eq!(now["artifacts"].as_array().unwrap().len(), 1, "{now:#}");
}
