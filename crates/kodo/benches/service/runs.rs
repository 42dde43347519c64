//! Runs a second, and how long one takes from its POST until it is `succeeded`, against the ceiling.
//!
//! How does a client learn that its run is over? Polling rows costs the server statements, polling
//! `GET /runs/:id` costs the service requests, and either adds its interval to the latency of a closed loop,
//! which at one client is a third of it. The service writes a line to its log right after it has committed
//! the end of a run, as it does for every user, and the bench reads the log anyway: that costs nothing and is
//! late by the time that a pipe needs. A log line is no proof, so the rows are counted when the load is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kodo_dev::harness::Service;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::ceiling::Ceiling;
use crate::figures::{Figures, rounded, say};
use crate::load::{Client, Load};
use crate::process::cpu_time;
use crate::stage::{Stage, store_intent, text};
use crate::wire::{Connection, Request};

/// No run takes longer; a bench that waits for ever hides a lost run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many clients there are, in turn, and how many of them the aim is about.
const CLIENTS: [usize; 3] = [1, 16, 64];
const AIM_CLIENTS: usize = 16;
const AIM_SHARE: f64 = 0.5;

/// Who waits for which run, and which runs ended before somebody waited.
#[derive(Debug, Default)]
struct Book {
    waiting: HashMap<String, oneshot::Sender<String>>,
    ended: HashMap<String, String>,
}

/// The ends of runs, as the service's log tells them.
#[derive(Debug, Clone)]
pub(crate) struct Ends(Arc<Mutex<Book>>);

impl Ends {
    /// Follows a service's log, until the service ends.
    pub(crate) fn follow(service: &Service) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let mut log = service.follow_log();
        let written = Arc::clone(&book);
        tokio::spawn(async move {
            while let Some(line) = log.recv().await {
                let Some((run, status)) = ended(&line) else {
                    continue;
                };
                let mut book = written.lock().unwrap_or_else(PoisonError::into_inner);
                match book.waiting.remove(&run) {
                    Some(waiting) => drop(waiting.send(status)),
                    None => drop(book.ended.insert(run, status)),
                }
            }
        });
        Self(book)
    }

    /// Starts a run and waits for its end, which must be a success. Returns its id.
    pub(crate) async fn run(
        &self,
        connection: &mut Connection,
        request: &Request,
    ) -> anyhow::Result<String> {
        let run = text(connection.ask(request).await?, "runId")?;
        let status = match self.wait_for(&run) {
            Ok(status) => status,
            Err(end) => tokio::time::timeout(PATIENCE, end)
                .await
                .with_context(|| format!("run {run} did not end within {PATIENCE:?}"))??,
        };
        if status != "succeeded" {
            bail!("run {run} ended as {status}");
        }
        Ok(run)
    }

    /// How a run ended, or where its end will be told.
    fn wait_for(&self, run: &str) -> Result<String, oneshot::Receiver<String>> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = book.ended.remove(run) {
            return Ok(status);
        }
        let (sender, receiver) = oneshot::channel();
        book.waiting.insert(run.to_owned(), sender);
        Err(receiver)
    }
}

/// Run and status in the log line that tells of a run's end.
fn ended(line: &str) -> Option<(String, String)> {
    // Most lines are about requests, and reading JSON costs more than looking at bytes.
    if !line.contains(r#""run ended""#) {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| Some(line[name].as_str()?.to_owned());
    Some((field("run.id")?, field("status")?))
}

struct Running {
    connection: Connection,
    request: Request,
    ends: Ends,
}

impl Client for Running {
    async fn once(&mut self) -> anyhow::Result<()> {
        self.ends.run(&mut self.connection, &self.request).await?;
        Ok(())
    }
}

/// Measures runs under load. Each figure lies between two measurements of the ceiling: a machine that is busy
/// with other things is so for all three.
pub(crate) async fn measure(
    stage: &Stage,
    service: &Service,
    ceiling: &Ceiling,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let ends = Ends::follow(service);
    for clients in CLIENTS {
        say(&format!("runs, {clients} clients, between two ceilings"));
        let before = ceiling.runs_per_second(stage, clients).await?;
        let mut running = Vec::with_capacity(clients);
        for _ in 0..clients {
            let mut connection = Connection::open(service.port).await?;
            running.push(Running {
                request: store_intent(&mut connection).await?,
                connection,
                ends: ends.clone(),
            });
        }
        let (rows, written) = (succeeded(stage).await?, stage.written_transactions().await?);
        let cpu = cpu_time(service)?;
        let load = Load::put(running, stage.window).await?;
        let cpu = cpu_time(service)? - cpu;
        let written = stage.written_transactions().await? - written;
        let rows = succeeded(stage).await? - rows;
        ensure!(
            usize::try_from(rows)? == load.total,
            "{} runs were told to have succeeded, {rows} rows say so",
            load.total
        );
        let after = ceiling.runs_per_second(stage, clients).await?;

        let share = load.per_second() / ((before + after) / 2.0);
        figures.print(&json!({
            "figure": "runs",
            "clients": clients,
            "runs": load.counted(),
            "runsPerSecond": rounded(load.per_second()),
            "p50Ms": rounded(load.percentile_ms(50)),
            "p99Ms": rounded(load.percentile_ms(99)),
            "durableCommitsPerRun": rounded(written as f64 / load.total as f64),
            "serviceCpuMsPerRun": rounded(cpu.as_secs_f64() * 1000.0 / load.total as f64),
        }))?;
        figures.print(&json!({
            "figure": "ceiling",
            "clients": clients,
            "by": ceiling.by(),
            "commitsPerRun": ceiling.commits_per_run(),
            "runsPerSecond": rounded((before + after) / 2.0),
            "beforeRunsPerSecond": rounded(before),
            "afterRunsPerSecond": rounded(after),
            "shareOfCeiling": rounded(share),
        }))?;
        if clients == AIM_CLIENTS {
            let seen = format!("{:.0} %", share * 100.0);
            figures.aim(
                "over 50 % of the ceiling at 16 clients",
                seen,
                share > AIM_SHARE,
            );
        }
    }
    Ok(())
}

/// Runs that succeeded, by their rows.
async fn succeeded(stage: &Stage) -> anyhow::Result<i64> {
    let counted = "SELECT count(*) FROM app.runs WHERE status = 'succeeded'";
    Ok(sqlx::query_scalar(counted).fetch_one(&stage.app).await?)
}
