//! What the databases say of a run, in a form that two runs can be compared in.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use kodo_harness::Service;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{World, until};

/// The committed fixtures: among them one for the demo intent, whose plan has a single tool call.
pub fn fixtures() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/oc").to_owned()
}

/// Everything recorded of a run in both databases, but for what differs between any two runs: its ids, the
/// times, and how often and by whom it was recovered.
pub async fn evidence(world: &World, run: &str) -> Value {
    let app = column(
        &world.app,
        "SELECT jsonb_build_object(
             'run', (SELECT jsonb_build_object('status', status, 'workflow', workflow_id,
                                               'trace', trace_id, 'error', error)
                     FROM app.runs WHERE id = $1),
             'steps', (SELECT jsonb_agg(jsonb_build_object('step', step_id, 'phase', phase, 'output', output,
                                                           'trace', trace_id,
                                                           'in order', started_at <= finished_at)
                                        ORDER BY started_at, step_id)
                       FROM app.run_steps WHERE run_id = $1),
             'artifacts', (SELECT jsonb_agg(jsonb_build_object('step', step_id, 'idx', idx, 'kind', kind, 'uri', uri,
                                                               'inline', inline, 'sha256', sha256)
                                            ORDER BY step_id, idx)
                           FROM app.artifacts WHERE run_id = $1))::text",
        run,
    )
    .await;
    let system = column(
        &world.system,
        "SELECT jsonb_build_object(
             'workflow', (SELECT jsonb_build_object('name', name, 'status', status, 'input', inputs,
                                                    'output', output, 'error', error,
                                                    'version', application_version)
                          FROM dbos.workflow_status WHERE workflow_uuid = $1),
             'checkpoints', (SELECT jsonb_agg(jsonb_build_array(function_id, function_name, output, error)
                                              ORDER BY function_id)
                             FROM dbos.operation_outputs WHERE workflow_uuid = $1))::text",
        run,
    )
    .await;
    let parse = |text: String| -> Value { serde_json::from_str(&text).expect("JSON of Postgres") };
    json!({ "app": parse(app.replace(run, "RUN")), "system": parse(system.replace(run, "RUN")) })
}

async fn column(pool: &PgPool, query: &'static str, run: &str) -> String {
    sqlx::query_scalar(query)
        .bind(run)
        .fetch_one(pool)
        .await
        .expect("evidence")
}

/// The step rows of a run, each with the transaction that wrote it: what must not be written again.
pub async fn step_versions(world: &World, run: &str) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT step_id, xmin::text FROM app.run_steps WHERE run_id = $1")
            .bind(run)
            .fetch_all(&world.app)
            .await
            .expect("steps");
    rows.into_iter().collect()
}

/// Executor, attempts and status of a workflow.
pub async fn workflow(world: &World, id: &str) -> (String, i64, String) {
    sqlx::query_as(
        "SELECT executor_id, recovery_attempts, status FROM dbos.workflow_status WHERE workflow_uuid = $1",
    )
    .bind(id)
    .fetch_one(&world.system)
    .await
    .expect("the workflow's row")
}

/// Waits until a run has recorded a step.
pub async fn recorded(world: &World, run: &str, step: &str) {
    until(&format!("step {step} of {run}"), || async {
        step_versions(world, run).await.contains_key(step)
    })
    .await;
}

/// Waits until the engine has taken a step's checkpoint, which comes after its record.
pub async fn checkpointed(world: &World, run: &str, step: &str) {
    until(&format!("the checkpoint of {step} of {run}"), || async {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM dbos.operation_outputs
                            WHERE workflow_uuid = $1 AND function_name = $2)",
        )
        .bind(run)
        .bind(step)
        .fetch_one(&world.system)
        .await
        .expect("checkpoints")
    })
    .await;
}

/// The `inline` of the run's only error artifact; `None` where it has none.
pub fn error_of(view: &Value) -> Option<Value> {
    let artifacts = view["artifacts"].as_array().expect("artifacts");
    let errors: Vec<&Value> = artifacts
        .iter()
        .filter(|artifact| artifact["kind"] == "error")
        .collect();
    assert!(errors.len() <= 1, "more than one reason: {errors:?}");
    errors.first().map(|error| error["inline"].clone())
}

/// Waits until the service has killed itself at its failpoint, really by SIGKILL.
pub async fn killed(service: &mut Service, point: &str) {
    let ended = service.wait(Duration::from_secs(30)).await;
    let ended = ended.unwrap_or_else(|error| panic!("{point}: {error}\n{}", service.log()));
    assert_eq!(
        ended.signal(),
        Some(9),
        "{point}: {ended}\n{}",
        service.log()
    );
}
