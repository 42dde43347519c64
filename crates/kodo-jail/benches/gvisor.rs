//! How long a job that does nothing takes in a sandbox of gVisor's, beside the same job in the jail in the same run. One
//! JSON line a figure. With the `runsc` and the platform that `SBX_RUNSC` and `SBX_GVISOR_PLATFORM` name.

use std::time::{Duration, Instant};

use kodo_jail::gvisor::{Gvisor, GvisorConfig, Platform};
use kodo_jail::{Helper, Jail, JailConfig};
use kodo_sandbox::{JobSpec, Sandbox};
use serde_json::json;

/// Rounds that count, and rounds before them that do not.
const ROUNDS: usize = 50;
const WARM_UP: usize = 3;

fn main() {
    // This program is what its own jail and its own sandboxes are started by.
    kodo_jail::be_the_helper_if_asked();
    // Run by `cargo test --benches` or a list of tests, there is nothing to do.
    if !std::env::args().any(|it| it == "--bench") {
        return;
    }
    if let Err(error) = measure() {
        eprintln!("start: {error}");
        std::process::exit(1);
    }
}

#[expect(clippy::disallowed_methods, reason = "what the task has found")]
fn config() -> Result<GvisorConfig, Box<dyn std::error::Error>> {
    let named = std::env::var_os("SBX_RUNSC").unwrap_or_else(|| "runsc".into());
    let platform = match std::env::var("SBX_GVISOR_PLATFORM") {
        Ok(word) => Platform::of(&word).ok_or("SBX_GVISOR_PLATFORM is no platform")?,
        Err(_) => Platform::default(),
    };
    Ok(GvisorConfig {
        runsc: named.into(),
        search: std::env::var_os("PATH"),
        platform,
        jail: jail(),
        ..GvisorConfig::default()
    })
}

fn jail() -> JailConfig {
    JailConfig {
        helper: Helper::default(),
        ..JailConfig::default()
    }
}

fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = config()?;
        let name = format!("gvisor {}", config.platform);
        let (jail, gvisor) = (Jail::new(jail()), Gvisor::start(config).await?);
        let job = JobSpec::new(["/bin/true"]);
        let sandboxes: [&dyn Sandbox; 2] = [&jail, &gvisor];
        let mut times: [Vec<Duration>; 2] = Default::default();
        for round in 0..ROUNDS + WARM_UP {
            for (times, sandbox) in times.iter_mut().zip(sandboxes) {
                let began = Instant::now();
                let result = sandbox.run(&job).await?;
                let took = began.elapsed();
                if result.exit_code() != 0 {
                    return Err(format!("{}: {:?}", sandbox.name(), result.ended).into());
                }
                if round >= WARM_UP {
                    times.push(took);
                }
            }
        }
        let mut jailed = 0.0;
        for (name, times) in ["process", &name].into_iter().zip(&mut times) {
            times.sort();
            let at =
                |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            if name == "process" {
                jailed = at(0.5);
            }
            println!(
                "{}",
                json!({
                    "figure": "gvisor_start", "launcher": name, "rounds": ROUNDS, "unit": "ms",
                    "p50": round(at(0.5)), "p99": round(at(0.99)), "min": round(at(0.0)),
                    "to_jail": round(at(0.5) / jailed),
                })
            );
        }
        Ok(())
    })
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
