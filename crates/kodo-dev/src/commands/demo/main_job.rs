//! The main job, as a person should see it first: runs that a `kill -9` interrupts, and what the database says.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use kodo_dev::harness::{Databases, Service};
use sqlx::PgPool;

use super::{Args, PATIENCE, post, stop, until};
use crate::say;

/// How many runs are interrupted.
const RUNS: usize = 6;

/// How long each tool call takes, in milliseconds: long enough to be killed in the middle of.
const TOOL_MS: u64 = 400;

/// What the demonstration asks for. No fixture has its key, so the default one answers: three tool calls.
const INTENT: &str = r#"{"goal":"make the failing test pass","inputs":{"repo":"sisu-kodo"},"constraints":{"determinism":true}}"#;

/// The steps that the default fixture's plan has.
const STEPS: [&str; 4] = ["plan", "tool-001", "tool-002", "tool-003"];

/// The steps that are recorded, by run and step, and how many rows each has.
type Steps = BTreeMap<(String, String), i64>;

/// Shows it.
pub(super) async fn show(args: &Args, databases: &Databases) -> anyhow::Result<()> {
    let options = args
        .service(databases)?
        .env("SBX_MOCK_DELAY_MS", TOOL_MS)
        .env("MAX_CONCURRENT_RUNS", RUNS);
    let (app, system) = (databases.app_pool(), databases.system_pool());

    say::line(&say::bold(
        "Sisu Kodo: an intent becomes a durable run, and kill -9 costs nothing.",
    ));

    say::step(1, "A service starts, on two databases made for this demo.");
    let mut service = Service::start(&options).await?;
    say::line(&format!(
        "   pid {}, http://127.0.0.1:{}, databases {} and {}",
        service.pid().unwrap_or_default(),
        service.port,
        databases.app.database,
        databases.system.database
    ));

    say::step(
        2,
        &format!("One intent is stored, {RUNS} runs of it are started."),
    );
    let runs = start_runs(&service).await?;

    // In the middle: every run has recorded something, none has recorded everything.
    until(PATIENCE, "the middle of the runs", async || {
        Ok(step_rows(&app).await?.len() >= RUNS * 2 + RUNS / 2)
    })
    .await?;
    let pid = service.pid().unwrap_or_default();
    service.kill9().await?;
    let before = step_rows(&app).await?;
    say::step(
        3,
        &format!(
            "{} in the middle of them. What the database holds now:",
            say::bad(&format!("kill -9 {pid}"))
        ),
    );
    table(&app, |key| match before.contains_key(key) {
        true => "recorded",
        false => "-",
    })
    .await?;
    ensure!(
        before.len() < RUNS * STEPS.len(),
        "the runs were over before the kill: this machine is too fast for the demo"
    );

    say::step(4, "The service starts again. Nobody tells it what to do.");
    let service = Service::start(&options).await?;
    say::line(&format!("   pid {}", service.pid().unwrap_or_default()));
    until(PATIENCE, "the end of every run", async || {
        let open: i64 =
            sqlx::query_scalar("SELECT count(*) FROM app.runs WHERE status <> 'succeeded'")
                .fetch_one(&app)
                .await?;
        Ok(open == 0)
    })
    .await
    .with_context(|| format!("the service's log:\n{}", service.log()))?;

    say::step(5, "Every run went on from its last recorded step:");
    let after = step_rows(&app).await?;
    table(&app, |key| match () {
        () if before.contains_key(key) => "before",
        () if after.contains_key(key) => "after",
        () => "-",
    })
    .await?;

    say::step(6, "Counted in the database:");
    count(&app, &system, &runs, &before, &after).await?;
    stop(service).await
}

/// What to do after the demonstrations.
pub(super) fn next() {
    say::line(&format!(
        "\n{} The demo's services and databases are gone; the Postgres it used still runs (bin/mise run db:down stops it).",
        say::good("Done.")
    ));
    say::line("Next: bin/mise run start, and docs/api.md shows the same with curl.");
}

async fn start_runs(service: &Service) -> anyhow::Result<Vec<String>> {
    let intent = post(service, "/intents", INTENT, (201, "intentId")).await?;
    say::line(&format!("   POST /intents -> 201 {intent}"));
    let path = format!("/intents/{intent}/run");
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(post(service, &path, "", (202, "runId")).await?);
    }
    say::line(&format!("   POST {path} -> 202, {RUNS} times"));
    Ok(runs)
}

async fn step_rows(app: &PgPool) -> sqlx::Result<Steps> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT run_id, step_id, count(*) FROM app.run_steps GROUP BY run_id, step_id",
    )
    .fetch_all(app)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|(run, step, count)| ((run, step), count))
        .collect())
}

/// A line a run, a column a step.
async fn table(
    app: &PgPool,
    cell: impl Fn(&(String, String)) -> &'static str,
) -> anyhow::Result<()> {
    let runs: Vec<(String, String)> = sqlx::query_as("SELECT id, status FROM app.runs ORDER BY id")
        .fetch_all(app)
        .await?;
    let head: String = STEPS.iter().map(|step| format!("{step:<10}")).collect();
    say::line(&say::dim(&format!(
        "   {:<38}{:<11}{}",
        "run",
        "status",
        head.trim_end()
    )));
    for (run, status) in runs {
        let cells: String = STEPS
            .iter()
            .map(|step| say::cell(cell(&(run.clone(), (*step).to_owned())), 10))
            .collect();
        say::line(&format!("   {run:<38}{status:<11}{}", cells.trim_end()));
    }
    Ok(())
}

async fn count(
    app: &PgPool,
    system: &PgPool,
    runs: &[String],
    before: &Steps,
    after: &Steps,
) -> anyhow::Result<()> {
    let (succeeded, checkpoints): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM dbos.workflow_status
                 WHERE workflow_uuid = ANY($1) AND status = 'SUCCESS'),
                (SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ANY($1))",
    )
    .bind(runs)
    .fetch_one(system)
    .await?;
    let artifacts: i64 = sqlx::query_scalar("SELECT count(*) FROM app.artifacts")
        .fetch_one(app)
        .await?;
    let kept = before.keys().all(|key| after.contains_key(key));
    let more_than_once = after.values().filter(|count| **count != 1).count();
    let steps = RUNS * STEPS.len();
    let lines = [
        (
            "runs whose workflow DBOS recorded as SUCCESS",
            format!("{succeeded} of {RUNS}"),
        ),
        ("steps recorded before the kill", before.len().to_string()),
        (
            "steps recorded after it",
            (after.len() - before.len()).to_string(),
        ),
        ("steps in all", format!("{} of {steps}", after.len())),
        ("steps recorded more than once", more_than_once.to_string()),
        (
            "checkpoints of the workflow engine",
            format!("{checkpoints} of {steps}"),
        ),
        (
            "artifacts kept, each with its sha256",
            artifacts.to_string(),
        ),
    ];
    for (what, number) in lines {
        say::line(&format!("   {what:<46}{}", say::bold(&number)));
    }
    ensure!(
        usize::try_from(succeeded)? == RUNS
            && after.len() == steps
            && usize::try_from(checkpoints)? == steps
            && more_than_once == 0
            && kept,
        "the database does not show what it should: that is a bug, please report the lines above"
    );
    Ok(())
}
