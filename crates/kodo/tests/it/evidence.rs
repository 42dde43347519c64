//! What the databases say of a run, in a form that two runs can be compared in.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use kodo_dev::harness::Service;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{World, until};

/// The committed fixtures: among them one for the demo intent, whose plan has a single tool call.
pub fn fixtures() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/oc").to_owned()
}

/// Everything recorded of a run, or of a crash demo by its workflow's id, in both databases: whole rows, so that a
/// column or a row that nobody expected shows. Left out is what differs between any two runs: ids, times, and how
/// often and by whom it was recovered.
pub async fn evidence(world: &World, run: &str) -> Value {
    evidence_but_for(world, run, &[]).await
}

/// The same, with further texts that only this run has replaced by a word.
pub async fn evidence_but_for(world: &World, run: &str, own: &[(&str, &str)]) -> Value {
    let app = column(
        &world.app,
        "SELECT jsonb_build_object(
             'instance', (SELECT id FROM app.instance),
             'run', (SELECT to_jsonb(r) - '{created_at,updated_at}'::text[] FROM app.runs r WHERE id = $1),
             'intent', (SELECT to_jsonb(i) - 'created_at' FROM app.intents i JOIN app.runs r ON r.intent_id = i.id
                        WHERE r.id = $1),
             'steps', (SELECT jsonb_agg(to_jsonb(s) - '{started_at,finished_at,epoch,view_bytes}'::text[]
                                        || jsonb_build_object('in order', started_at <= finished_at,
                                                              -- How many depends on the length of names.
                                                              'bytes counted', view_bytes IS NOT NULL)
                                        ORDER BY started_at, step_id)
                       FROM app.run_steps s WHERE run_id = $1),
             'artifacts', (SELECT jsonb_agg(to_jsonb(a) - 'created_at' ORDER BY step_id, idx)
                           FROM app.artifacts a WHERE run_id = $1),
             'marks', (SELECT jsonb_agg(to_jsonb(m) - 'created_at' ORDER BY step)
                       FROM app.marks m WHERE run_id = $1),
             'idempotency', (SELECT jsonb_agg(to_jsonb(k) - '{created_at,fingerprint}'::text[] ORDER BY scope, key)
                             FROM app.idempotency_keys k WHERE strpos(body, $1) > 0))::text",
        run,
    )
    .await;
    let system = column(
        &world.system,
        "SELECT jsonb_build_object(
             'workflow', (SELECT to_jsonb(w) - '{executor_id,recovery_attempts,queue_name,created_at,updated_at,
                                                 started_at_epoch_ms,completed_at,owner_xid}'::text[]
                                 || jsonb_build_object('completed', completed_at IS NOT NULL)
                          FROM dbos.workflow_status w WHERE workflow_uuid = $1),
             'checkpoints', (SELECT jsonb_agg(to_jsonb(o) - '{started_at_epoch_ms,completed_at_epoch_ms}'::text[]
                                              -- When a sleeper wakes up is a time, too.
                                              || CASE function_name WHEN 'DBOS.sleep'
                                                 THEN jsonb_build_object('output', 'wake-up time') ELSE '{}' END
                                              ORDER BY function_id)
                             FROM dbos.operation_outputs o WHERE workflow_uuid = $1),
             'notifications', (SELECT count(*) FROM dbos.notifications WHERE destination_uuid = $1),
             'streams', (SELECT count(*) FROM dbos.streams WHERE workflow_uuid = $1),
             'events', (SELECT count(*) FROM dbos.workflow_events WHERE workflow_uuid = $1),
             'event history', (SELECT count(*) FROM dbos.workflow_events_history WHERE workflow_uuid = $1))::text",
        run,
    )
    .await;
    let parse = |text: &str| -> Value { serde_json::from_str(text).expect("JSON of Postgres") };
    let found = parse(&app);
    let mut text = json!({ "app": found, "system": parse(&system) }).to_string();
    let words = [
        (run, "RUN"),
        (found["run"]["intent_id"].as_str().unwrap_or(run), "INTENT"),
        (
            found["instance"].as_str().expect("the instance"),
            "INSTANCE",
        ),
    ];
    for (own, word) in words.iter().chain(own) {
        text = text.replace(own, word);
    }
    parse(&text)
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

/// Every row that records an effect of a run or of a crash demo, in both databases, each with the transaction that
/// wrote it: what must be neither written again nor lost.
pub async fn effects(world: &World, run: &str) -> BTreeMap<String, String> {
    let read = async |pool: &PgPool, query: &'static str| -> Vec<(String, String)> {
        let rows = sqlx::query_as(query).bind(run).fetch_all(pool).await;
        rows.expect("effects")
    };
    let app = "SELECT 'step ' || step_id, xmin::text FROM app.run_steps WHERE run_id = $1
               UNION ALL SELECT 'artifact ' || step_id || '/' || idx, xmin::text FROM app.artifacts WHERE run_id = $1
               UNION ALL SELECT 'mark ' || step, xmin::text FROM app.marks WHERE run_id = $1
               UNION ALL SELECT 'key ' || scope || ' ' || key, xmin::text FROM app.idempotency_keys
                         WHERE strpos(body, $1) > 0";
    let system = "SELECT 'checkpoint ' || function_id || ' ' || function_name, xmin::text
                  FROM dbos.operation_outputs WHERE workflow_uuid = $1";
    let mut rows = read(&world.app, app).await;
    rows.extend(read(&world.system, system).await);
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

/// Waits until the engine has a row of a run.
pub async fn begun(world: &World, run: &str) {
    until(&format!("the workflow of {run}"), || async {
        let row = "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = $1";
        let rows: i64 = sqlx::query_scalar(row)
            .bind(run)
            .fetch_one(&world.system)
            .await
            .expect("a count");
        rows == 1
    })
    .await;
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
