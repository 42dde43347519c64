//! `cargo bench -p kodo --bench service`: the service's figures against this machine's own ceiling.
//!
//! The real binary, a real Postgres (`DB_HOST`, `DB_PORT`, `DB_USER`, `DB_PASSWORD`), databases of its own
//! that go when it ends, however it ends. One JSON line a figure on standard output and nothing else there,
//! the unit in each key's name. `BENCH_SECONDS` says how long load is put on for one figure. An answer that is
//! no success, or a run that does not succeed, fails the bench; a missed aim does not, but for that of `content`.
//!
//! `… --bench service -- runs` measures one part alone; the parts are [`PARTS`]. `… -- before runs16` measures this build and
//! another one (`BENCH_BEFORE`, its binary) in turn, and prints each figure as a ratio: see `against.rs`.
//! `BENCH_ROUNDS` says how often each is measured.

mod against;
mod ceiling;
mod content;
mod cost;
mod figure;
mod figures;
mod http;
mod load;
mod pending;
mod process;
mod proxy;
mod runs;
mod side;
mod stage;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use kodo_dev::harness::Service;
use tokio::signal::unix::{SignalKind, signal};

use crate::ceiling::Ceiling;
use crate::figures::{Figures, say};
use crate::side::{Kind, Side};
use crate::stage::{Stage, last_words, stop};

/// What can be asked for. Without a wish everything is measured, in this order.
const PARTS: [&str; 6] = ["ready", "memory", "http", "runs", "pending", "content"];

/// One thread: the bench takes at most one core from the service and from Postgres, whatever it does.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Cargo says `--bench` when it benches. Test runners that run every target say something else.
    let (flags, parts): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    if !flags.iter().any(|flag| flag == "--bench") {
        say("nothing measured: run it with `cargo bench -p kodo --bench service`");
        return ExitCode::SUCCESS;
    }
    match bench(&parts).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench(wishes: &[String]) -> anyhow::Result<()> {
    let stage = Stage::from_environment()?;
    let (sides, wishes) = match wishes {
        [mode, figures @ ..] if mode == "before" => (before(&stage)?, figures),
        _ => (Vec::new(), wishes),
    };
    stage.sweep().await.with_context(|| {
        format!(
            "Postgres at {}:{} (`bin/mise run db:up` starts one)",
            stage.server.host, stage.server.port
        )
    })?;
    let measured = match sides.is_empty() {
        true => unless_interrupted(measure(&stage, wishes)).await,
        false => unless_interrupted(compare(&stage, &sides, wishes)).await,
    };
    // Whatever happened, nothing stays behind. The figures' failure matters more than the clean-up's.
    let mut cleared = stage.clear().await;
    for side in &sides {
        cleared = cleared.and(side.stage.clear().await);
    }
    measured?;
    cleared.context("dropping the bench's databases")?;
    Ok(())
}

/// This build, the one of `BENCH_BEFORE`, and the commits without a service.
fn before(stage: &Stage) -> anyhow::Result<Vec<Side>> {
    let program = variable("BENCH_BEFORE")
        .context("BENCH_BEFORE names no binary: see the task bench:before")?;
    let side = |name, program, kind| Side {
        name,
        waits: false,
        stage: stage.beside(name, program),
        kind,
    };
    let ours = || stage.program.clone();
    Ok(vec![
        side("ours", ours(), Kind::Kodo),
        side("before", PathBuf::from(program), Kind::Kodo),
        side("pgbench", ours(), Kind::Pgbench),
    ])
}

async fn compare(stage: &Stage, sides: &[Side], wishes: &[String]) -> anyhow::Result<()> {
    let wanted = against::figures_named(wishes)?;
    let rounds: usize = variable("BENCH_ROUNDS")
        .map_or(Ok(5), |rounds| rounds.parse())
        .context("BENCH_ROUNDS")?;
    ensure!(
        (1..=100).contains(&rounds),
        "BENCH_ROUNDS={rounds}: 1 to 100 is accepted"
    );
    let mut figures = Figures::default();
    figures.print(&stage.machine().await?)?;
    for side in sides {
        side.prepare().await?;
    }
    against::measure(sides, &wanted, rounds, &mut figures).await?;
    figures.summary();
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the benchmark learns what to measure"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn measure(stage: &Stage, parts: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("no part {unknown:?}; there are {}", PARTS.join(", "));
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wish| wish == part);
    let mut figures = Figures::default();
    figures.print(&stage.machine().await?)?;

    // The first start makes and migrates the databases; it is nobody's figure.
    stop(Service::start(&stage.service()).await?).await?;
    if wanted("ready") {
        process::measure_start(stage, &mut figures).await?;
    }
    // Before the load, since its services come and go.
    let ceiling = if wanted("runs") {
        let commits = cost::measure(stage, &figures).await?;
        Some(Ceiling::new(stage, commits).await?)
    } else {
        None
    };

    let service = Service::start(&stage.service()).await?;
    let loaded = async {
        if wanted("memory") {
            process::measure_idle_memory(&service, &mut figures).await?;
        }
        if wanted("http") {
            http::measure(stage, &service, &figures).await?;
        }
        if let Some(ceiling) = &ceiling {
            runs::measure(stage, &service, ceiling, &mut figures).await?;
        }
        if wanted("memory") {
            process::measure_memory(&service, &figures, "after").await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = loaded.await {
        bail!("{error:#}; {}", last_words(&service));
    }
    stop(service).await?;

    if wanted("pending") {
        pending::measure(stage, &mut figures).await?;
    }
    if wanted("content") {
        content::measure(stage, &mut figures).await?;
    }
    figures.summary();
    Ok(())
}

/// Runs the bench, unless a signal comes first. Either way it is dropped, and with it what it has started.
async fn unless_interrupted(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
        _ = hangup.recv() => bail!("the terminal is gone"),
    }
}
