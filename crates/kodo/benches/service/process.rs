//! The process itself: how fast it is ready, how much memory it takes.

use std::time::Duration;

use anyhow::Context;
use kodo_dev::harness::Service;
use serde_json::json;
use sqlx::PgPool;
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
    cpu_time_of(&[service.pid().context("the service is gone")?])
}

/// The same of several processes.
pub(crate) fn cpu_time_of(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let fields = stat(*pid)?;
        // utime and stime.
        ticks += number(&fields, 14)? + number(&fields, 15)?;
    }
    Ok(ticks_of_time(ticks))
}

/// The processor time that the server and all that it has started have used up to now; `None` if it is not on this machine.
pub(crate) async fn cpu_time_of_postgres(app: &PgPool) -> anyhow::Result<Option<Duration>> {
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(app)
        .await?;
    let Ok(fields) = stat(backend.unsigned_abs()) else {
        return Ok(None);
    };
    let server = u32::try_from(number(&fields, 4)?)?;
    let name = std::fs::read_to_string(format!("/proc/{server}/comm"))?;
    if !name.starts_with("postgres") {
        return Ok(None);
    }
    let fields = stat(server)?;
    // Its own, and that of its processes that are over.
    let mut ticks: u64 = (14..=17)
        .map(|field| number(&fields, field))
        .sum::<Result<_, _>>()?;
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        // One that ends meanwhile is among those that are over the next time.
        let Some(Ok(fields)) = pid.map(stat) else {
            continue;
        };
        if number(&fields, 4)? == u64::from(server) {
            ticks += number(&fields, 14)? + number(&fields, 15)?;
        }
    }
    Ok(Some(ticks_of_time(ticks)))
}

/// The fields of `/proc/PID/stat` behind the name, which may hold blanks: the third and on.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    Ok(fields.split(' ').map(str::to_owned).collect())
}

/// A field by the number that proc(5) gives it.
fn number(fields: &[String], field: usize) -> anyhow::Result<u64> {
    let text = fields.get(field - 3).context("a short line")?;
    Ok(text.parse()?)
}

/// The unit is fixed at a hundredth of a second, whatever the kernel's own tick is.
fn ticks_of_time(ticks: u64) -> Duration {
    Duration::from_millis(10 * ticks)
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
    let resident = megabytes(pid, "VmRSS:")?;
    figures.print(&json!({
        "figure": "memory",
        "when": when,
        "residentMegabytes": rounded(resident),
        "peakResidentMegabytes": rounded(megabytes(pid, "VmHWM:")?),
    }))?;
    Ok(resident)
}

/// The resident memory of several processes.
pub(crate) fn resident_megabytes(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| megabytes(*pid, "VmRSS:")).sum()
}

fn megabytes(pid: u32, name: &str) -> anyhow::Result<f64> {
    Ok(memory(pid, name)? as f64 / 1e6)
}

/// What the kernel says of a process's memory under this name, in bytes.
pub(crate) fn memory(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes = kibibytes.with_context(|| format!("no {name} of process {pid}"))?;
    Ok(kibibytes.parse::<u64>()? * 1024)
}
