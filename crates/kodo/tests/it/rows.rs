//! The rows: the course's queries verbatim, the columns of the contract, and two schemas that stay apart.

use crate::test_databases::TestDatabases;
use sqlx::PgPool;
use sqlx::postgres::PgRow;
use sqlx::{Column, Row};

use crate::api::committed_fixtures;
use crate::support::{DEMO_INTENT, World, program, server, text, until};

async fn rows(pool: &PgPool, query: &'static str) -> Vec<PgRow> {
    sqlx::query(query).fetch_all(pool).await.expect(query)
}

fn columns(row: &PgRow) -> Vec<&str> {
    row.columns().iter().map(|column| column.name()).collect()
}

#[tokio::test]
async fn the_queries_of_the_course_find_the_run() {
    let world = World::apart("rows_course", |options| {
        committed_fixtures(options).env("WF_SLEEP_MS", 0)
    })
    .await;
    let intent = world.intent(DEMO_INTENT).await;
    let path = format!("/intents/{intent}/run");
    let started = world.client.post(&path, r#"{"traceId":"po-demo"}"#).await;
    let run = text(&started.unwrap(), "runId");
    world.ended(&run).await;

    // Walkthrough D.
    let intents = rows(
        &world.app,
        "SELECT id,goal,created_at FROM app.intents ORDER BY created_at DESC LIMIT 3;",
    )
    .await;
    assert_eq!(intents.len(), 1);
    assert_eq!(columns(&intents[0]), ["id", "goal", "created_at"]);
    assert_eq!(intents[0].get::<String, _>("id"), intent);
    assert_eq!(intents[0].get::<String, _>("goal"), "demo");
    let runs = rows(
        &world.app,
        "SELECT id,intent_id,workflow_id,status,trace_id FROM app.runs ORDER BY created_at DESC LIMIT 3;",
    )
    .await;
    let found = ["id", "intent_id", "workflow_id", "status", "trace_id"]
        .map(|column| runs[0].get::<String, _>(column));
    assert_eq!(found, [&run, &intent, &run, "succeeded", "po-demo"]);
    let steps = rows(
        &world.app,
        "SELECT run_id,step_id,phase FROM app.run_steps ORDER BY started_at DESC NULLS LAST LIMIT 5;",
    )
    .await;
    let steps: Vec<[String; 3]> = steps
        .iter()
        .map(|row| ["run_id", "step_id", "phase"].map(|column| row.get(column)))
        .collect();
    assert_eq!(
        steps,
        [[&run, "tool-001", "executing"], [&run, "plan", "planning"]]
    );

    // Walkthrough B.
    world.client.post("/crashdemo?wf=rows", "").await.unwrap();
    until("both marks", || async {
        let marks = rows(
            &world.app,
            "SELECT run_id,step,COUNT(*) c FROM app.marks GROUP BY run_id,step ORDER BY run_id DESC,step;",
        )
        .await;
        let marks: Vec<(String, String, i64)> = marks
            .iter()
            .map(|row| (row.get("run_id"), row.get("step"), row.get("c")))
            .collect();
        marks == [("rows".into(), "s1".into(), 1), ("rows".into(), "s2".into(), 1)]
    })
    .await;
    until("both workflows' SUCCESS", || async {
        let workflows = rows(
            &world.system,
            "SELECT workflow_uuid,status FROM dbos.workflow_status ORDER BY updated_at DESC LIMIT 10;",
        )
        .await;
        let ended = workflows
            .iter()
            .filter(|row| row.get::<String, _>("status") == "SUCCESS");
        ended.count() == 2
    })
    .await;
    // Apart: each database has one of the two schemas, and nothing of the other.
    for (pool, here, there) in [(&world.app, "app", "dbos"), (&world.system, "dbos", "app")] {
        let schemas: Vec<String> =
            sqlx::query_scalar("SELECT nspname FROM pg_namespace WHERE nspname IN ('app', 'dbos')")
                .fetch_all(pool)
                .await
                .unwrap();
        assert_eq!(schemas, [here], "and not {there}");
    }
    let strays: Vec<String> = sqlx::query_scalar(
        "SELECT table_schema || '.' || table_name FROM information_schema.tables
         WHERE table_schema NOT IN ('app', 'pg_catalog', 'information_schema')",
    )
    .fetch_all(&world.app)
    .await
    .unwrap();
    assert_eq!(strays, Vec::<String>::new());
}

#[tokio::test]
async fn the_tables_have_the_columns_and_keys_of_the_contract() {
    let databases = TestDatabases::one(&program(), &server(), "rows_columns")
        .await
        .unwrap();
    let app = databases.databases.app_pool();
    let described: String = sqlx::query_scalar(
        "SELECT string_agg(line, E'\n' ORDER BY line) FROM (
             SELECT table_name || ': ' || string_agg(
                 column_name || ' ' || CASE data_type WHEN 'timestamp with time zone' THEN 'timestamptz' ELSE data_type END
                 || CASE is_nullable WHEN 'YES' THEN '?' ELSE '' END, ', ' ORDER BY ordinal_position) AS line
             FROM information_schema.columns
             WHERE table_schema = 'app' AND table_name IN ('marks', 'intents', 'runs', 'run_steps', 'artifacts')
             GROUP BY table_name
             UNION ALL
             SELECT conrelid::regclass::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
             WHERE connamespace = 'app'::regnamespace AND contype IN ('p', 'u')
               AND conrelid::regclass::text IN ('app.marks', 'app.intents', 'app.runs', 'app.run_steps', 'app.artifacts')
         ) AS lines",
    )
    .fetch_one(&app)
    .await
    .unwrap();
    insta::assert_snapshot!(described, @r"
    app.artifacts PRIMARY KEY (run_id, step_id, idx)
    app.intents PRIMARY KEY (id)
    app.marks PRIMARY KEY (run_id, step)
    app.run_steps PRIMARY KEY (run_id, step_id)
    app.runs PRIMARY KEY (id)
    app.runs UNIQUE (workflow_id)
    artifacts: run_id text, step_id text, idx integer, kind text, uri text, inline jsonb?, sha256 text, created_at timestamptz, stored_bytes bigint?, media_type text?, canonical text?
    intents: id text, goal text, payload jsonb, created_at timestamptz
    marks: run_id text, step text, created_at timestamptz
    run_steps: run_id text, step_id text, phase text, output jsonb, trace_id text?, started_at timestamptz, finished_at timestamptz?, epoch integer?, shown json?, view_bytes bigint?
    runs: id text, intent_id text, workflow_id text, status text, trace_id text?, error jsonb?, created_at timestamptz, updated_at timestamptz, planner_away_since timestamptz?, forked_from text?, from_step text?
    ");
    for refused in [
        "INSERT INTO app.marks (run_id, step) VALUES ('x', 's3')",
        "INSERT INTO app.marks (run_id, step) VALUES ('x', 's1'), ('x', 's1')",
        "INSERT INTO app.intents (id, goal, payload) VALUES ('x', '', '{}')",
        "INSERT INTO app.runs (id, intent_id, workflow_id) VALUES ('x', 'no intent', 'x')",
    ] {
        let outcome = sqlx::query(refused).execute(&app).await;
        assert!(outcome.is_err(), "{refused}");
    }
}
