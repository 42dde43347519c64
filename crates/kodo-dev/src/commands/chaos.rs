//! The chaos soak: clients start runs while services and the database are killed and restarted, and at the end the
//! rows are counted against what the clients were told.
//!
//! The seed decides what is broken and when, and what clients ask for; how the machine interleaves all of that is the
//! machine's business, so a seed that found something finds it again often, not always.

mod board;
mod clients;
mod evidence;
mod lanes;
mod postgres;
mod report;
mod schedule;
mod verdict;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use kodo_dev::harness::{Databases, ServiceOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::interrupt::{Interrupted, unless_interrupted};
use crate::server::Server;
use board::Board;
use clients::{Customer, INTENTS};
use evidence::{Rows, unfinished};
use postgres::Postgres;
use schedule::{Fault, Schedule};
use worker::Worker;

/// Services on the same databases.
const SERVICES: usize = 2;

/// A run takes half a second and more where nothing disturbs it: long enough to be hit between two steps.
const TOOL_CALL_MS: u32 = 150;

/// The durable sleep of the crash demo, for the same reason.
const DEMO_SLEEP_MS: u32 = 600;

/// How long all may take to come to an end once nothing is broken any more. A slot whose holder is not provably dead
/// waits ten seconds; the rest is for a machine that is busy.
const QUIET_TIMEOUT: Duration = Duration::from_secs(180);

/// Pause between two progress lines.
const PROGRESS: Duration = Duration::from_secs(5);

/// A week: longer than anybody waits for, shorter than what a clock can hold.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a caller may have set for another service.
const UNSET: &str = "HOST API_TOKEN API_TOKEN_FILE DB_SSLMODE DB_POOL_SIZE MAX_CONCURRENT_RUNS OC_MODE OC_FIXTURES_DIR \
    SBX_MODE TEST_SEED";

/// Start runs while services and the database are killed, and count afterwards.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long things are broken: 30s, 5m, 1h
    #[arg(default_value = "1m", value_parser = length)]
    length: Duration,
    /// Decides what is broken and when; drawn where it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// How many clients ask at once, each for one or two runs at a time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    clients: u16,
    /// Keep logs and data also where all is well
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    server: Server,
}

/// `30s`, `5m`, `1h`, or a number of seconds.
fn length(text: &str) -> Result<Duration, String> {
    let seconds = || text.parse().ok().map(Duration::from_secs);
    let length = kodo_dev::course::duration(text).or_else(seconds);
    length
        .filter(|length| !length.is_zero() && *length <= LONGEST)
        .ok_or_else(|| format!("{text:?} is no length: write 30s, 5m or 1h"))
}

/// Runs a soak. Exit code 1 where anything is not as it must be.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let seed = options
        .seed
        .unwrap_or_else(|| fastrand::u64(..=u64::from(u32::MAX)));
    let schedule = Schedule::of(seed, SERVICES, options.length);
    println!(
        "chaos: seed {seed}, {} s, {SERVICES} services on one pair of databases, {} clients",
        options.length.as_secs(),
        options.clients
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(staged(options, seed, &schedule));
    runtime.shutdown_background();
    ended
}

/// Sets the stage, plays on it, and clears it away: whole where all is well or a signal came, and but for logs and
/// data where something is to be looked into.
async fn staged(options: &Options, seed: u64, schedule: &Schedule) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("kodo_chaos_").tempdir()?;
    let mut postgres = Postgres::new(kodo()?, folder.path(), &options.server).await?;
    let played = unless_interrupted(async {
        postgres.start().await?;
        play(options, seed, schedule, &postgres, folder.path()).await
    });
    let played = played.await;
    // The services are gone with the play. The server is stopped even where it was just about to start.
    let stopped = postgres.down().await;
    let remove = match &played {
        Ok(holds) => *holds && !options.keep,
        Err(error) => error.is::<Interrupted>(),
    };
    if remove {
        postgres.remove();
    } else {
        println!(
            "chaos: logs of the services are in {}",
            folder.keep().display()
        );
        println!(
            "chaos: the database and its log are in {}",
            postgres.data.display()
        );
    }
    stopped.context("stopping the database")?;
    Ok(match played.with_context(|| format!("seed {seed}"))? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The soak itself. Returns whether every promise was kept, and has said so.
async fn play(
    options: &Options,
    seed: u64,
    schedule: &Schedule,
    postgres: &Postgres,
    folder: &Path,
) -> anyhow::Result<bool> {
    let databases = Databases::named(&postgres.config, "chaos");
    let board = Arc::new(Board::new(SERVICES));
    let service = service_options(&postgres.program, &databases);
    let mut workers: Vec<Worker> = (0..SERVICES)
        .map(|index| Worker::new(index, service.clone(), Arc::clone(&board), folder))
        .collect();
    for worker in &mut workers {
        worker.start().await?;
        worker.ready().await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let customer = |index| Customer::new(Arc::clone(&board), Arc::clone(&stop), seed, index);
    let reference = reference(customer(usize::from(options.clients)), &board, &databases).await?;
    println!(
        "chaos: up in {}; every run is to look like the undisturbed ones of before",
        folder.display()
    );

    let begun = Instant::now();
    // Both end with this function, whatever comes of it.
    let (mut clients, mut progress) = (JoinSet::new(), JoinSet::new());
    for index in 0..usize::from(options.clients) {
        clients.spawn(customer(index).work());
    }
    progress.spawn(say(Arc::clone(&board), begun, options.length));
    let broken = lanes::run(schedule, &mut workers, postgres, &board, options.length).await;
    let requests_for = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    broken?;
    println!("chaos: nothing is broken any more; waiting until all is quiet");
    let quiet_from = Instant::now();
    for worker in &mut workers {
        worker.ready().await?;
    }
    while let Some(ended) = clients.join_next().await {
        ended.context("a client")?;
    }
    quiet(&databases, &board).await?;
    progress.abort_all();
    let quiet = quiet_from.elapsed();
    for worker in &workers {
        worker.look_for_panics()?;
    }

    let rows = Rows::read(&databases).await?;
    let mut checks = verdict::judge(&board.told(), &rows, &reference);
    checks.push(verdict::prove(&postgres.program, &databases).await?);
    for worker in &mut workers {
        worker.suffer(Fault::Terminate).await?;
    }
    report::figures(&board.told(), &rows, requests_for, quiet);
    Ok(report::verdict(seed, &checks))
}

/// What an undisturbed run of each kind of intent leaves behind, checked by hand: a reference that is wrong itself
/// would excuse everything.
async fn reference(
    mut customer: Customer,
    board: &Board,
    databases: &Databases,
) -> anyhow::Result<Vec<String>> {
    let mut evidence = Vec::new();
    // The plan, and one step for each of its tool calls.
    for (kind, steps) in [2, 4].into_iter().enumerate().take(INTENTS.len()) {
        let run = customer.one_run(kind).await;
        let run = run.with_context(|| format!("no undisturbed run: {:?}", board.told().wrong))?;
        let rows = Rows::read(databases).await?;
        let row = rows.runs.iter().find(|row| row.id == run.run);
        let row = row.context("the undisturbed run has no row")?;
        let workflow = rows.workflows.get(&row.workflow_id);
        let shape = &workflow.context("no workflow")?.shape;
        ensure!(
            row.status == "succeeded" && shape.split(' ').count() == steps,
            "an undisturbed run is {} with the checkpoints {shape}",
            row.status,
        );
        evidence.push(row.evidence());
    }
    Ok(evidence)
}

/// Waits until no run and no workflow is unfinished; that it takes too long is a violation.
async fn quiet(databases: &Databases, board: &Board) -> anyhow::Result<()> {
    let deadline = Instant::now() + QUIET_TIMEOUT;
    loop {
        let (runs, workflows) = unfinished(databases).await?;
        if (runs, workflows) == (0, 0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            board.wrong(format!(
                "{QUIET_TIMEOUT:?} after the last fault {runs} runs and {workflows} workflows are unfinished"
            ));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// A line every few seconds.
async fn say(board: Arc<Board>, begun: Instant, length: Duration) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        println!(
            "chaos: {} of {} s: {}",
            begun.elapsed().as_secs(),
            length.as_secs(),
            board.progress()
        );
    }
}

/// The binary beside this one.
fn kodo() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("kodo");
    ensure!(
        program.is_file(),
        "no {}; run: bin/mise run build",
        program.display()
    );
    Ok(program)
}

/// A service of the soak, whatever the caller's environment is set up for.
fn service_options(program: &Path, databases: &Databases) -> ServiceOptions {
    UNSET
        .split_whitespace()
        .fold(ServiceOptions::new(program), |it, name| it.env(name, ""))
        .envs(databases.environment())
        // It says where it listens at this level, which is how it is found.
        .env("RUST_LOG", "info")
        .env("DB_CONNECT_TIMEOUT_MS", 120_000)
        .env("DRAIN_GRACE_MS", 5_000)
        .env("SBX_MOCK_DELAY_MS", TOOL_CALL_MS)
        .env("WF_SLEEP_MS", DEMO_SLEEP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_minutes_and_hours_are_read() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h", 3600), ("90", 90)] {
            assert_eq!(length(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused_with_what_is() {
        for text in [
            "",
            "m",
            "0s",
            "-1s",
            "5 m",
            "1d",
            "1.5m",
            "99999999999999999999s",
            "9999h",
        ] {
            assert!(
                length(text).is_err_and(|said| said.contains("30s")),
                "{text}"
            );
        }
    }
}
