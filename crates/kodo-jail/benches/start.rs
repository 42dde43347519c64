//! How long a jail takes to start: /bin/true in it, beside plain fork and exec, and beside bubblewrap where the
//! machine has it. One JSON line a figure.
//!
//! The launchers take turns, so that whatever else the machine does meets all of them alike.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kodo_jail::{Helper, Jail, JailConfig};
use kodo_sandbox::{JobSpec, Sandbox};
use serde_json::json;

/// Rounds that count, and rounds before them that do not.
const ROUNDS: usize = 200;
const WARM_UP: usize = 10;
/// Pause before each start that is measured.
const BETWEEN: Duration = Duration::from_millis(10);

fn main() {
    // Run by `cargo test --benches` or a list of tests, there is nothing to do.
    if !std::env::args().any(|it| it == "--bench") {
        return;
    }
    if let Err(error) = measure() {
        eprintln!("start: {error}");
        std::process::exit(1);
    }
}

fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // As one job from the command line meets it, and as jobs of a service do.
    let [cold, jail] = [0, 1].map(|ready| {
        Jail::new(JailConfig {
            helper: Helper::program(
                env!("CARGO_BIN_EXE_kodo-jail-probe").into(),
                vec!["jail-init".into()],
                false,
            ),
            ready,
            ..JailConfig::default()
        })
    });
    let spec = JobSpec::new(["/bin/true"]);
    let enforced = runtime.block_on(jail.run(&spec))?.enforced;
    let bwrap = is_there("bwrap");
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..ROUNDS + WARM_UP {
        let mut one = [Duration::ZERO; 4];
        one[0] = timed(|| plain("/bin/true", &[]))?;
        one[1] = timed(|| Ok(runtime.block_on(cold.run(&spec)).map(drop)?))?;
        one[2] = timed(|| Ok(runtime.block_on(jail.run(&spec)).map(drop)?))?;
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
    let mut middles = [0.0; 4];
    for (middle, times) in middles.iter_mut().zip(&mut times) {
        times.sort();
        *middle = at(times, 0.5);
    }
    for (launcher, times) in LAUNCHERS.into_iter().zip(&times) {
        if times.is_empty() {
            println!(
                "{}",
                json!({"figure": "jail_start", "launcher": launcher, "missing": true})
            );
            continue;
        }
        let mut figure = json!({
            "figure": "jail_start", "launcher": launcher, "rounds": ROUNDS, "unit": "ms",
            "p50": round(at(times, 0.5)), "p99": round(at(times, 0.99)), "min": round(at(times, 0.0)),
        });
        compare(&mut figure, at(times, 0.5), middles);
        println!("{figure}");
    }
    for parallel in [1, 8] {
        let mut rates: [Vec<f64>; 4] = Default::default();
        for _ in 0..TURNS {
            rates[0].push(plain_rate("/bin/true", &[], parallel)?);
            rates[1].push(runtime.block_on(rate(&cold, &spec, parallel))?);
            rates[2].push(runtime.block_on(rate(&jail, &spec, parallel))?);
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

/// What comes closest to the jail: every namespace, a file tree of its own, no rights.
#[rustfmt::skip]
const BWRAP: &[&str] = &[
    "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--uid", "1000", "--gid", "1000",
    "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink",
    "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--cap-drop", "ALL", "/bin/true",
];

/// The launchers, in the order of their figures.
const LAUNCHERS: [&str; 4] = ["fork and exec", "process, cold", "process", "bwrap"];

/// Milliseconds below which that share of the sorted times lies.
fn at(times: &[Duration], share: f64) -> f64 {
    let last = times.len().saturating_sub(1) as f64;
    times
        .get((last * share) as usize)
        .map_or(0.0, |it| it.as_secs_f64() * 1e3)
}

/// Adds what a figure is by those of plain exec and of bubblewrap in the same run.
fn compare(figure: &mut serde_json::Value, value: f64, all: [f64; 4]) {
    for (name, other) in [("to_exec", all[0]), ("to_bwrap", all[3])] {
        if other > 0.0 && (value - other).abs() > f64::EPSILON {
            figure[name] = round(value / other).into();
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn timed(
    work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Duration, Box<dyn std::error::Error>> {
    // A service does something else between two jobs, and what one launcher leaves behind is not the next one's time.
    std::thread::sleep(BETWEEN);
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn plain(program: &str, arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
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

fn is_there(program: &str) -> bool {
    plain(program, BWRAP).is_ok()
}

/// How often the launchers take turns for a figure of a rate, which is the middle one, and jobs of one turn.
const TURNS: usize = 11;
const JOBS: usize = 80;

/// The middle one, or nothing where there is none.
fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

/// How often a second a program can be started, by so many threads.
fn plain_rate(
    program: &str,
    arguments: &[&str],
    parallel: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
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
                .unwrap_or_else(|_| Err("a thread broke off".to_owned()))
        })
    })?;
    Ok(JOBS as f64 / began.elapsed().as_secs_f64())
}

async fn rate(
    jail: &Jail,
    spec: &JobSpec,
    parallel: usize,
) -> Result<f64, kodo_sandbox::SandboxError> {
    let began = Instant::now();
    let workers = (0..parallel).map(|_| {
        let (jail, spec) = (jail.clone(), spec.clone());
        tokio::spawn(async move {
            for _ in 0..JOBS / parallel {
                jail.run(&spec).await?;
            }
            Ok::<_, kodo_sandbox::SandboxError>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker
            .await
            .map_err(|error| kodo_sandbox::SandboxError::Unavailable {
                reason: error.to_string(),
            })??;
    }
    Ok(JOBS as f64 / began.elapsed().as_secs_f64())
}
