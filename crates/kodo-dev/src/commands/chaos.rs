//! The chaos soak: clients start runs while services and the database are killed and restarted, and at the end the
//! rows are counted against what the clients were told.
//!
//! The seed decides what is broken and when, and what clients ask for; how the machine interleaves all of that is the
//! machine's business, so a seed that found something finds it again often, not always.

mod board;
mod clients;
mod evidence;
mod lanes;
mod length;
mod postgres;
mod prove;
mod report;
mod schedule;
mod verdict;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use kodo_dev::harness::{Databases, ServiceOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use board::Board;
use clients::{Customer, INTENTS};
use evidence::{Evidence, Rows, unfinished};
use postgres::Postgres;
use report::Report;
use schedule::Schedule;
use verdict::judge;
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

/// Start runs while services and the database are killed, and count afterwards.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long things are broken: 30s, 5m, 1h
    #[arg(default_value = "1m", value_parser = length::parse)]
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
    /// Print what would be broken and when, and end
    #[arg(long)]
    plan: bool,
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
    if options.plan {
        print!("{schedule}");
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(staged(options, seed, &schedule));
    runtime.shutdown_background();
    ended
}

/// Sets the stage, plays on it, and clears it away: whole where all is well or a signal came, and but for logs and
/// data where something is to be looked into.
async fn staged(options: &Options, seed: u64, schedule: &Schedule) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let folder = tempfile::Builder::new().prefix("kodo_chaos_").tempdir()?;
    let program = kodo()?;
    let mut postgres = None;
    let played = {
        let play = async {
            let server = postgres.insert(Postgres::start(&program, folder.path()).await?);
            play(options, seed, schedule, &program, server, folder.path()).await
        };
        tokio::select! {
            played = play => Some(played),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        }
    };
    // The services are gone with the play. The server is stopped even where it was just about to start.
    let stopped = match &postgres {
        Some(server) => server.down().await,
        None => Postgres::stop_in(&program, folder.path()).await,
    };
    let remove = match &played {
        Some(Ok(report)) => report.holds() && !options.keep,
        Some(Err(_)) => false,
        None => true,
    };
    if remove {
        if let Some(server) = &postgres {
            server.remove();
        }
    } else {
        let kept = folder.keep();
        println!("chaos: logs of the services are in {}", kept.display());
        if let Some(server) = &postgres {
            println!(
                "chaos: the database and its log are in {}",
                server.data().display()
            );
        }
    }
    stopped.context("stopping the database")?;
    let Some(played) = played else {
        bail!("interrupted; everything is removed (seed {seed})");
    };
    let report = played.with_context(|| format!("seed {seed}"))?;
    print!("{report}");
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The soak itself.
async fn play(
    options: &Options,
    seed: u64,
    schedule: &Schedule,
    program: &Path,
    postgres: &Postgres,
    folder: &Path,
) -> anyhow::Result<Report> {
    let databases = Databases::named(&postgres.config, "chaos");
    let board = Arc::new(Board::new(SERVICES));
    let service = service_options(program, &databases);
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
    let mut clients = JoinSet::new();
    for index in 0..usize::from(options.clients) {
        clients.spawn(customer(index).work());
    }
    let progress = tokio::spawn(say(Arc::clone(&board), begun, options.length));
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
    let restless = quiet(&databases).await?;
    progress.abort();
    let took = quiet_from.elapsed();
    if let Some(restless) = restless {
        board.wrong(restless);
    }

    let rows = Rows::read(&databases).await?;
    let mut checks = judge(&board.told(), &rows, &reference);
    checks.push(prove::prove(program, &databases).await?);
    for worker in &mut workers {
        worker.suffer(schedule::Fault::Terminate).await?;
    }
    Ok(Report::new(seed, requests_for, took, &board, &rows, checks))
}

/// What an undisturbed run of each kind of intent leaves behind, checked by hand: a reference that is wrong itself
/// would excuse everything.
async fn reference(
    mut customer: Customer,
    board: &Board,
    databases: &Databases,
) -> anyhow::Result<Vec<Evidence>> {
    let mut evidence = Vec::new();
    for kind in 0..INTENTS.len() {
        let run = customer.one_run(kind).await;
        let run = run.with_context(|| format!("no undisturbed run: {:?}", board.told().wrong))?;
        let rows = Rows::read(databases).await?;
        let row = rows.runs.iter().find(|row| row.id == run.run);
        let row = row.context("the undisturbed run has no row")?;
        // The plan, and one step for each of its tool calls.
        let steps = [2, 4][kind];
        let workflow = rows
            .workflows
            .get(&row.workflow_id)
            .context("no workflow")?;
        ensure!(
            row.status == "succeeded" && workflow.shape.split(' ').count() == steps,
            "an undisturbed run is {} with the checkpoints {}",
            row.status,
            workflow.shape
        );
        evidence.push(rows.evidence(row));
    }
    Ok(evidence)
}

/// Waits until no run and no workflow is unfinished; says what is if that takes too long.
async fn quiet(databases: &Databases) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + QUIET_TIMEOUT;
    loop {
        let (runs, workflows) = unfinished(databases).await?;
        if (runs, workflows) == (0, 0) {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(format!(
                "{QUIET_TIMEOUT:?} after the last fault {runs} runs and {workflows} workflows are unfinished"
            )));
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
    let unset = |options: ServiceOptions, name: &&str| options.env(name, "");
    [
        "HOST",
        "API_TOKEN",
        "API_TOKEN_FILE",
        "DB_SSLMODE",
        "DB_POOL_SIZE",
        "MAX_CONCURRENT_RUNS",
        "OC_MODE",
        "OC_FIXTURES_DIR",
        "SBX_MODE",
        "TEST_SEED",
    ]
    .iter()
    .fold(ServiceOptions::new(program), unset)
    .envs(databases.environment())
    // It says where it listens at this level, which is how it is found.
    .env("RUST_LOG", "info")
    .env("DB_CONNECT_TIMEOUT_MS", 120_000)
    .env("DRAIN_GRACE_MS", 5_000)
    .env("SBX_MOCK_DELAY_MS", TOOL_CALL_MS)
    .env("WF_SLEEP_MS", DEMO_SLEEP_MS)
}
