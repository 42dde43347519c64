//! A start that finds work: how soon it is done, and whether the service answers meanwhile.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kodo_contract::RunId;
use kodo_dev::harness::Service;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use crate::figures::{Figures, rounded, say};
use crate::stage::{Stage, last_words, stop, store_intent, text};
use crate::wire::{Connection, Request};

/// How many runs are found, in turn, and how many of them the aim is about.
const RUNS: [usize; 2] = [1, 500];
const AIM_RUNS: usize = 500;
const AIM: Duration = Duration::from_secs(5);

/// How often `/healthz` is asked meanwhile, and the rows.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Bound on every wait.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures both forms of unfinished work.
pub(crate) async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    for count in RUNS {
        say(&format!("{count} interrupted runs found at start"));
        let runs = interrupt(stage, count).await?;
        let aim = "500 interrupted runs done in under 5 s from the start";
        finish(stage, &runs, "interrupted", aim, figures).await?;

        say(&format!("{count} queued runs found at start"));
        let runs = queue(stage, count).await?;
        let aim = "500 queued runs done in under 5 s from the start";
        finish(stage, &runs, "queued", aim, figures).await?;
    }
    Ok(())
}

/// Starts runs that are long at their tool call, and kills the service once the engine has written down that
/// each of them is planned: so many workflows are pending, each in the middle.
pub(crate) async fn interrupt(stage: &Stage, count: usize) -> anyhow::Result<Vec<String>> {
    let options = stage
        .service()
        .env("SBX_MOCK_DELAY_MS", 600_000)
        .env("MAX_CONCURRENT_RUNS", count + 100);
    let mut service = Service::start(&options).await?;
    let mut connection = Connection::open(service.port).await?;
    let request = store_intent(&mut connection).await?;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        runs.push(text(connection.ask(&request).await?, "runId")?);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let planned: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ANY($1)",
        )
        .bind(&runs)
        .fetch_one(&stage.system)
        .await?;
        if usize::try_from(planned)? == count {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{planned} of {count} runs were planned within {PATIENCE:?}"
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    service.kill9().await?;
    Ok(runs)
}

/// Stores runs as the service does, and no more: as if it had died each time before it told the engine.
async fn queue(stage: &Stage, count: usize) -> anyhow::Result<Vec<String>> {
    let runs: Vec<String> = (0..count)
        .map(|_| RunId::generate().into_string())
        .collect();
    let stored = sqlx::query(
        "INSERT INTO app.runs (id, intent_id, workflow_id)
         SELECT run, (SELECT min(id) FROM app.intents), run FROM unnest($1::text[]) AS run",
    )
    .bind(&runs)
    .execute(&stage.app)
    .await?;
    ensure!(usize::try_from(stored.rows_affected())? == count);
    Ok(runs)
}

/// Starts a service, and waits for the end of the runs that it finds.
async fn finish(
    stage: &Stage,
    runs: &[String],
    form: &str,
    aim: &'static str,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let service = Service::spawn(&stage.service()).await?;
    let bound = started.elapsed();
    let mut health = Health::default();
    let over = tokio::select! {
        over = all_over(stage) => over,
        failed = health.watch(service.port) => failed,
    };
    let took = started.elapsed();
    if let Err(error) = over {
        bail!("{error:#}; {}", last_words(&service));
    }
    let succeeded = all_succeeded(stage, runs).await;
    succeeded.with_context(|| format!("{form} runs; {}", last_words(&service)))?;
    stop(service).await?;

    let worst = health.worst();
    figures.print(&json!({
        "figure": "pending",
        "form": form,
        "runs": runs.len(),
        "seconds": rounded(took.as_secs_f64()),
        "runsPerSecond": rounded(runs.len() as f64 / took.as_secs_f64()),
        "portsBoundMs": rounded(bound.as_secs_f64() * 1000.0),
        "healthzAnswers": health.answers,
        "healthzWorstMs": rounded(worst.as_secs_f64() * 1000.0),
        "resolutionMs": LOOK_AGAIN.as_millis(),
    }))?;
    if runs.len() == AIM_RUNS {
        let seen = format!(
            "{:.2} s, /healthz answered {} times, worst {:.1} ms",
            took.as_secs_f64(),
            health.answers,
            worst.as_secs_f64() * 1000.0
        );
        figures.aim(aim, seen, took < AIM);
    }
    Ok(())
}

/// Fails unless all these runs succeeded, by the rows.
pub(crate) async fn all_succeeded(stage: &Stage, runs: &[String]) -> anyhow::Result<()> {
    let succeeded: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM app.runs WHERE id = ANY($1) AND status = 'succeeded'",
    )
    .bind(runs)
    .fetch_one(&stage.app)
    .await?;
    let count = runs.len();
    ensure!(
        usize::try_from(succeeded)? == count,
        "{succeeded} of {count} runs succeeded"
    );
    Ok(())
}

/// Waits until no run is unfinished, by the rows: an index look-up each time.
pub(crate) async fn all_over(stage: &Stage) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let unfinished: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM app.runs WHERE status IN ('queued', 'running', 'waiting_input'))",
        )
        .fetch_one(&stage.app)
        .await?;
        if !unfinished {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("runs are unfinished after {PATIENCE:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How `/healthz` answered.
#[derive(Debug, Default)]
struct Health {
    answers: usize,
    slowest: Duration,
    asked: Option<Instant>,
}

impl Health {
    /// Asks again and again. Returns where an answer fails to come.
    async fn watch(&mut self, port: u16) -> anyhow::Result<()> {
        let mut connection = Connection::open(port).await?;
        let request = Request::get("/healthz");
        let mut tick = tokio::time::interval(LOOK_AGAIN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let asked = Instant::now();
            self.asked = Some(asked);
            connection.ask(&request).await?;
            self.asked = None;
            self.answers += 1;
            self.slowest = self.slowest.max(asked.elapsed());
        }
    }

    /// The longest that anybody waited, whoever still waits included.
    fn worst(&self) -> Duration {
        let waiting = self.asked.map(|asked| asked.elapsed()).unwrap_or_default();
        self.slowest.max(waiting)
    }
}
