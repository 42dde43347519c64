//! The main job, as a person should see it first: runs that a `kill -9` interrupts, and what the database says.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use kodo_dev::harness::{Databases, Service};
use sqlx::PgPool;

use super::Args;
use super::crash::until;
use crate::interrupt::unless_interrupted;
use crate::say::Say;

/// How many runs are interrupted.
const RUNS: usize = 6;

/// How long each tool call takes, in milliseconds: long enough to be killed in the middle of.
const TOOL_MS: u64 = 400;

/// Bound on every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between the end of the service and the clean-up: a kill takes a moment to be carried out.
const SETTLE: Duration = Duration::from_millis(100);

/// What the demonstration asks for. No fixture has its key, so the default one answers: three tool calls.
const INTENT: &str = r#"{"goal":"make the failing test pass","inputs":{"repo":"sisu-kodo"},"constraints":{"determinism":true}}"#;

/// The steps that the default fixture's plan has.
const STEPS: [&str; 4] = ["plan", "tool-001", "tool-002", "tool-003"];

/// Runs it on databases of its own, which go with it.
pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let databases = args.own_databases("kodo_demo");
    let told = unless_interrupted(story(args, &databases)).await;
    // A service that an interruption has left is killed by now, and what it asked of the server has arrived.
    tokio::time::sleep(SETTLE).await;
    // Whatever happened, nothing stays behind. The story's failure matters more than the clean-up's.
    let dropped = databases.drop().await;
    told?;
    dropped.context("dropping the demo's databases")
}

async fn story(args: &Args, databases: &Databases) -> anyhow::Result<()> {
    let say = Say::new();
    let options = args
        .service(databases)?
        .env("SBX_MOCK_DELAY_MS", TOOL_MS)
        .env("MAX_CONCURRENT_RUNS", RUNS);
    let (app, system) = (databases.app_pool(), databases.system_pool());

    say.line(&say.bold("Sisu Kodo: an intent becomes a durable run, and kill -9 costs nothing."));

    say.step(1, "A service starts, on two databases made for this demo.");
    let mut service = Service::start(&options).await?;
    say.line(&format!(
        "   pid {}, http://127.0.0.1:{}, databases {} and {}",
        service.pid().unwrap_or_default(),
        service.port,
        databases.app.database,
        databases.system.database
    ));

    say.step(
        2,
        &format!("One intent is stored, {RUNS} runs of it are started."),
    );
    let runs = start_runs(&service, say).await?;

    // In the middle: every run has recorded something, none has recorded everything.
    let recorded = || async { step_rows(&app).await };
    until(PATIENCE, "the middle of the runs", || async {
        Ok(recorded().await?.len() >= RUNS * 2 + RUNS / 2)
    })
    .await?;
    let pid = service.pid().unwrap_or_default();
    service.kill9().await?;
    let before = step_rows(&app).await?;
    say.step(
        3,
        &format!(
            "{} in the middle of them. What the database holds now:",
            say.bad(&format!("kill -9 {pid}"))
        ),
    );
    table(say, &app, |run, step| {
        if before.contains_key(&(run.to_owned(), step.to_owned())) {
            "recorded"
        } else {
            "-"
        }
    })
    .await?;
    ensure!(
        before.len() < RUNS * STEPS.len(),
        "the runs were over before the kill: this machine is too fast for the demo"
    );

    say.step(4, "The service starts again. Nobody tells it what to do.");
    let mut service = Service::start(&options).await?;
    say.line(&format!("   pid {}", service.pid().unwrap_or_default()));
    let finished = until(PATIENCE, "the end of every run", || async {
        let open: i64 =
            sqlx::query_scalar("SELECT count(*) FROM app.runs WHERE status <> 'succeeded'")
                .fetch_one(&app)
                .await?;
        Ok(open == 0)
    })
    .await;
    finished.with_context(|| format!("the service's log:\n{}", service.log()))?;

    say.step(5, "Every run went on from its last recorded step:");
    let after = step_rows(&app).await?;
    table(say, &app, |run, step| {
        let key = (run.to_owned(), step.to_owned());
        if before.contains_key(&key) {
            "before"
        } else if after.contains_key(&key) {
            "after"
        } else {
            "-"
        }
    })
    .await?;

    say.step(6, "Counted in the database:");
    count(say, &app, &system, &runs, &before, &after).await?;

    let exit = service.stop().await?;
    ensure!(exit.success(), "the service ended with {exit} on SIGTERM");
    Ok(())
}

/// What to do after the demonstrations.
pub(super) fn next() {
    let say = Say::new();
    say.line(&format!(
        "\n{} The demo's services and databases are gone; the Postgres it used still runs (bin/mise run db:down stops it).",
        say.good("Done.")
    ));
    say.line("Next: bin/mise run start, and docs/api.md shows the same with curl.");
}

async fn start_runs(service: &Service, say: Say) -> anyhow::Result<Vec<String>> {
    let client = service.client();
    let stored = client.post("/intents", INTENT).await?;
    ensure!(
        stored.status == 201,
        "POST /intents answered {}: {}",
        stored.status,
        stored.text()
    );
    let intent = text(&stored.json()["intentId"])?;
    say.line(&format!("   POST /intents -> 201 {intent}"));
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let started = client.post(&format!("/intents/{intent}/run"), "").await?;
        ensure!(
            started.status == 202,
            "POST /intents/{intent}/run answered {}: {}",
            started.status,
            started.text()
        );
        runs.push(text(&started.json()["runId"])?);
    }
    say.line(&format!(
        "   POST /intents/{intent}/run -> 202, {RUNS} times"
    ));
    Ok(runs)
}

fn text(value: &serde_json::Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("an id in the answer")?.to_owned())
}

/// How many rows each recorded step has, by run and step.
async fn step_rows(app: &PgPool) -> anyhow::Result<BTreeMap<(String, String), i64>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT run_id, step_id, count(*) FROM app.run_steps GROUP BY run_id, step_id",
    )
    .fetch_all(app)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(run, step, count)| ((run, step), count))
        .collect())
}

/// A line a run, a column a step.
async fn table(
    say: Say,
    app: &PgPool,
    cell: impl Fn(&str, &str) -> &'static str,
) -> anyhow::Result<()> {
    let runs: Vec<(String, String)> = sqlx::query_as("SELECT id, status FROM app.runs ORDER BY id")
        .fetch_all(app)
        .await?;
    let head: String = STEPS.iter().map(|step| format!("{step:<10}")).collect();
    say.line(&say.dim(&format!(
        "   {:<38}{:<11}{}",
        "run",
        "status",
        head.trim_end()
    )));
    for (run, status) in runs {
        let cells: String = STEPS
            .iter()
            .map(|step| say.cell(cell(&run, step), 10))
            .collect();
        say.line(&format!("   {run:<38}{status:<11}{}", cells.trim_end()));
    }
    Ok(())
}

async fn count(
    say: Say,
    app: &PgPool,
    system: &PgPool,
    runs: &[String],
    before: &BTreeMap<(String, String), i64>,
    after: &BTreeMap<(String, String), i64>,
) -> anyhow::Result<()> {
    let succeeded: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ANY($1) AND status = 'SUCCESS'",
    )
    .bind(runs)
    .fetch_one(system)
    .await?;
    let checkpoints: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ANY($1)",
    )
    .bind(runs)
    .fetch_one(system)
    .await?;
    let artifacts: i64 = sqlx::query_scalar("SELECT count(*) FROM app.artifacts")
        .fetch_one(app)
        .await?;
    let changed = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .count();
    let more_than_once = after.values().filter(|count| **count != 1).count();
    let expected = RUNS * STEPS.len();
    let lines = [
        (
            "runs whose workflow DBOS recorded as SUCCESS",
            format!("{succeeded} of {}", runs.len()),
        ),
        ("steps recorded before the kill", before.len().to_string()),
        (
            "steps recorded after it",
            (after.len() - before.len()).to_string(),
        ),
        ("steps in all", format!("{} of {expected}", after.len())),
        ("steps recorded more than once", more_than_once.to_string()),
        (
            "checkpoints of the workflow engine",
            format!("{checkpoints} of {expected}"),
        ),
        (
            "artifacts kept, each with its sha256",
            artifacts.to_string(),
        ),
    ];
    for (what, number) in lines {
        say.line(&format!("   {what:<46}{}", say.bold(&number)));
    }
    ensure!(
        usize::try_from(succeeded)? == runs.len()
            && after.len() == expected
            && usize::try_from(checkpoints)? == expected
            && more_than_once == 0
            && changed == 0,
        "the database does not show what it should: that is a bug, please report the lines above"
    );
    Ok(())
}
