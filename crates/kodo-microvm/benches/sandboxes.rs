//! How long a job that does nothing (`/bin/true`) takes in each sandbox, one JSON line a figure.
//!
//! `jail`: beside plain fork and exec, and beside bubblewrap where it is installed; then jobs a second. `gvisor`, with
//! the `runsc` and the platform that `SBX_RUNSC` and `SBX_GVISOR_PLATFORM` name, and `microvm`, by software emulation,
//! with a machine that is ready and with one that has to boot: beside the same job in the jail.
//!
//! The launchers take turns, so that whatever else the machine does meets all of them alike.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kodo_jail::gvisor::{Gvisor, GvisorConfig, Platform};
use kodo_jail::{Jail, JailConfig};
use kodo_microvm::{Acceleration, MicroVm, MicroVmConfig};
use kodo_sandbox::{JobSpec, Sandbox, SandboxError};
use serde_json::{Value, json};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() {
    // This program is its own helper and its own launcher of machines.
    kodo_jail::be_the_helper_if_asked();
    kodo_microvm::be_the_emulator_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Run by `cargo test --benches` or a list of tests, there is nothing to do.
    if !arguments.iter().any(|it| it == "--bench") {
        return;
    }
    let measured = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(
            |runtime| match arguments.iter().find(|it| *it != "--bench") {
                Some(name) if name == "jail" => jail(&runtime),
                Some(name) if name == "gvisor" => runtime.block_on(gvisor()),
                Some(name) if name == "microvm" => runtime.block_on(microvm()),
                _ => Err("name one of jail, gvisor, microvm".into()),
            },
        );
    if let Err(error) = measured {
        eprintln!("sandboxes: {error}");
        std::process::exit(1);
    }
}

fn nothing() -> JobSpec {
    JobSpec::new(["/bin/true"])
}

// ---- beside the jail ----

async fn gvisor() -> Outcome {
    const ROUNDS: usize = 50;
    let platform = match variable("SBX_GVISOR_PLATFORM") {
        Some(word) => Platform::of(&word).ok_or("SBX_GVISOR_PLATFORM is no platform")?,
        None => Platform::default(),
    };
    let gvisor = Gvisor::start(GvisorConfig {
        runsc: variable("SBX_RUNSC").map_or_else(|| PathBuf::from("runsc"), PathBuf::from),
        search: variable("PATH").map(Into::into),
        platform,
        ..GvisorConfig::default()
    })
    .await?;
    let jail = Jail::new(JailConfig::default());
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS + 3 {
        for (times, sandbox) in times.iter_mut().zip([&jail as &dyn Sandbox, &gvisor]) {
            let took = timed_job(sandbox).await?;
            // The first three warm caches up.
            if round >= 3 {
                times.push(took);
            }
        }
    }
    let name = format!("gvisor {platform}");
    by_the_jail("gvisor_start", [("process", &times[0]), (&name, &times[1])]);
    Ok(())
}

async fn microvm() -> Outcome {
    const ROUNDS: usize = 10;
    let folder = variable("SBX_MICROVM_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.data/microvm")),
        PathBuf::from,
    );
    let config = |ready| MicroVmConfig {
        folder: folder.clone(),
        acceleration: Acceleration::Tcg,
        ready,
        ..MicroVmConfig::default()
    };
    let jail = Jail::new(JailConfig::default());
    let (cold, warm) = (
        MicroVm::start(config(0)).await?,
        MicroVm::start(config(1)).await?,
    );
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        // A machine has come up: what is measured is the job.
        warm.ready().await;
        for (times, sandbox) in times.iter_mut().zip([&jail as &dyn Sandbox, &warm, &cold]) {
            times.push(timed_job(sandbox).await?);
        }
    }
    let names = ["process", "microvm tcg warm", "microvm tcg cold"];
    by_the_jail("microvm_job", [0, 1, 2].map(|it| (names[it], &times[it])));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "what the task has found")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

async fn timed_job(sandbox: &dyn Sandbox) -> Outcome<Duration> {
    let began = Instant::now();
    let result = sandbox.run(&nothing()).await?;
    let took = began.elapsed();
    if result.exit_code() != 0 {
        return Err(format!("{}: {:?}", sandbox.name(), result.ended).into());
    }
    Ok(took)
}

/// Prints a figure for each launcher, the first of which is the jail.
fn by_the_jail<const N: usize>(figure: &str, launchers: [(&str, &Vec<Duration>); N]) {
    let mut jailed = None;
    for (name, times) in launchers {
        let mut line = distribution(figure, name, times);
        let middle = at(times, 0.5);
        line["to_jail"] = round(middle / *jailed.get_or_insert(middle)).into();
        println!("{line}");
    }
}

// ---- the jail beside plain exec and bubblewrap ----

/// Rounds that count, and rounds before them that do not.
const ROUNDS: usize = 200;
const WARM_UP: usize = 10;
/// Pause before each start that is measured.
const BETWEEN: Duration = Duration::from_millis(10);
/// How often the launchers take turns for a figure of a rate, which is the middle one, and jobs of one turn.
const TURNS: usize = 11;
const JOBS: usize = 80;

/// The launchers, in the order of their figures.
const LAUNCHERS: [&str; 4] = ["fork and exec", "process, cold", "process", "bwrap"];

/// What comes closest to the jail: every namespace, a file tree of its own, no rights.
#[rustfmt::skip]
const BWRAP: &[&str] = &[
    "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--uid", "1000", "--gid", "1000",
    "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink",
    "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--cap-drop", "ALL", "/bin/true",
];

fn jail(runtime: &tokio::runtime::Runtime) -> Outcome {
    // As one job from the command line meets it, and as jobs of a service do.
    let [cold, jail] = [0, 1].map(|ready| {
        Jail::new(JailConfig {
            ready,
            ..JailConfig::default()
        })
    });
    let job = nothing();
    let enforced = runtime.block_on(jail.run(&job))?.enforced;
    let bwrap = plain("bwrap", BWRAP).is_ok();
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..ROUNDS + WARM_UP {
        let mut one = [Duration::ZERO; 4];
        one[0] = timed(|| plain("/bin/true", &[]))?;
        one[1] = timed(|| Ok(runtime.block_on(cold.run(&job)).map(drop)?))?;
        one[2] = timed(|| Ok(runtime.block_on(jail.run(&job)).map(drop)?))?;
        if bwrap {
            one[3] = timed(|| plain("bwrap", BWRAP))?;
        }
        if round >= WARM_UP {
            for (times, one) in times.iter_mut().zip(one) {
                if one > Duration::ZERO {
                    times.push(one);
                }
            }
        }
    }
    let middles = [0, 1, 2, 3].map(|it| at(&times[it], 0.5));
    for (launcher, times) in LAUNCHERS.into_iter().zip(&times) {
        if times.is_empty() {
            println!(
                "{}",
                json!({"figure": "jail_start", "launcher": launcher, "missing": true})
            );
            continue;
        }
        let mut figure = distribution("jail_start", launcher, times);
        compare(&mut figure, at(times, 0.5), middles);
        println!("{figure}");
    }
    for parallel in [1, 8] {
        let mut rates: [Vec<f64>; 4] = Default::default();
        for _ in 0..TURNS {
            rates[0].push(plain_rate("/bin/true", &[], parallel)?);
            rates[1].push(runtime.block_on(rate(&cold, &job, parallel))?);
            rates[2].push(runtime.block_on(rate(&jail, &job, parallel))?);
            if bwrap {
                rates[3].push(plain_rate("bwrap", BWRAP, parallel)?);
            }
        }
        let rates = rates.map(middle);
        for (launcher, rate) in LAUNCHERS.into_iter().zip(rates) {
            if rate == 0.0 {
                continue;
            }
            let mut figure = json!({
                "figure": "jobs_per_second", "launcher": launcher, "parallel": parallel, "value": round(rate),
            });
            compare(&mut figure, rate, rates);
            println!("{figure}");
        }
    }
    println!("{}", json!({"figure": "enforced", "value": enforced}));
    Ok(())
}

fn distribution(figure: &str, launcher: &str, times: &[Duration]) -> Value {
    json!({
        "figure": figure, "launcher": launcher, "rounds": times.len(), "unit": "ms",
        "p50": round(at(times, 0.5)), "p99": round(at(times, 0.99)), "min": round(at(times, 0.0)),
    })
}

/// Milliseconds below which that share of the times lies; 0 if there are none.
fn at(times: &[Duration], share: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    let last = times.len().saturating_sub(1) as f64;
    times
        .get((last * share) as usize)
        .map_or(0.0, |it| it.as_secs_f64() * 1e3)
}

/// Adds what a figure is by those of plain exec and of bubblewrap in the same run.
fn compare(figure: &mut Value, value: f64, all: [f64; 4]) {
    for (name, other) in [("to_exec", all[0]), ("to_bwrap", all[3])] {
        if other > 0.0 && (value - other).abs() > f64::EPSILON {
            figure[name] = round(value / other).into();
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn timed(work: impl FnOnce() -> Outcome) -> Outcome<Duration> {
    // A service does something else between two jobs, and what one launcher leaves behind is not the next one's time.
    std::thread::sleep(BETWEEN);
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn plain(program: &str, arguments: &[&str]) -> Outcome {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("{program} ended with {status}").into());
    }
    Ok(())
}

/// The middle one; 0 if there are none.
fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// How often a second a program can be started, by so many threads.
fn plain_rate(program: &str, arguments: &[&str], parallel: usize) -> Outcome<f64> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..parallel)
            .map(|_| {
                scope.spawn(|| {
                    (0..JOBS / parallel)
                        .try_for_each(|_| plain(program, arguments).map_err(|it| it.to_string()))
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        })
    })?;
    Ok(JOBS as f64 / began.elapsed().as_secs_f64())
}

async fn rate(jail: &Jail, job: &JobSpec, parallel: usize) -> Outcome<f64> {
    let began = Instant::now();
    let workers = (0..parallel).map(|_| {
        let (jail, job) = (jail.clone(), job.clone());
        tokio::spawn(async move {
            for _ in 0..JOBS / parallel {
                jail.run(&job).await?;
            }
            Ok::<_, SandboxError>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    Ok(JOBS as f64 / began.elapsed().as_secs_f64())
}
