//! The process itself: how fast it is ready, how much memory it takes.

use std::time::Duration;

use anyhow::Context;
use kodo_dev::harness::Service;
use serde_json::json;
use tokio::time::Instant;

use crate::figures::{Figures, rounded, say};
use crate::stage::{Stage, stop};

/// How many starts the figure is the median of.
const STARTS: usize = 5;

/// How long after the last work memory is looked at.
const QUIET: Duration = Duration::from_secs(2);

const AIM_READY: Duration = Duration::from_millis(200);
const AIM_IDLE_MB: f64 = 30.0;

/// Measures the time from process start to ready, on a migrated database that a service left cleanly.
pub(crate) async fn measure_start(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    say(&format!("process start to ready, {STARTS} times"));
    let options = stage.service();
    let mut took = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let from = Instant::now();
        let service = Service::start(&options).await?;
        took.push(from.elapsed());
        stop(service).await?;
    }
    took.sort_unstable();
    let median = took[STARTS / 2];
    let ms = |took: Duration| rounded(took.as_secs_f64() * 1000.0);
    figures.print(&json!({
        "figure": "ready",
        "starts": STARTS,
        "medianMs": ms(median),
        "fastestMs": ms(took[0]),
        "slowestMs": ms(took[STARTS - 1]),
        // The harness looks at /readyz this often.
        "resolutionMs": 10,
    }))?;
    figures.aim(
        "ready in under 200 ms on a migrated database",
        format!("{:.0} ms", median.as_secs_f64() * 1000.0),
        median < AIM_READY,
    );
    Ok(())
}

/// The processor time that a service has used up to now: what does not depend on who else is busy.
pub(crate) fn cpu_time(service: &Service) -> anyhow::Result<Duration> {
    let pid = service.pid().context("the service is gone")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15, utime and stime, counted behind the name, which may hold blanks. The unit is fixed at
    // a hundredth of a second, whatever the kernel's own tick is.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: Vec<u64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
}

/// Measures the resident memory of a service that has done nothing yet.
pub(crate) async fn measure_idle_memory(
    service: &Service,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let megabytes = measure_memory(service, figures, "idle").await?;
    figures.aim(
        "under 30 MB resident when idle",
        format!("{megabytes:.1} MB"),
        megabytes < AIM_IDLE_MB,
    );
    Ok(())
}

/// Measures the resident memory of a service after what came before.
pub(crate) async fn measure_memory(
    service: &Service,
    figures: &Figures,
    when: &str,
) -> anyhow::Result<f64> {
    tokio::time::sleep(QUIET).await;
    let pid = service.pid().context("the service is gone")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kibibytes = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(number
            .with_context(|| format!("no {name} of process {pid}"))?
            .parse()?)
    };
    let megabytes = kibibytes("VmRSS:")? * 1024.0 / 1e6;
    figures.print(&json!({
        "figure": "memory",
        "when": when,
        "residentMegabytes": rounded(megabytes),
        "peakResidentMegabytes": rounded(kibibytes("VmHWM:")? * 1024.0 / 1e6),
    }))?;
    Ok(megabytes)
}
