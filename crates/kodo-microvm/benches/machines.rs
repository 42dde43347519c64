//! How long a job takes in a microVM by software emulation: cold, where it waits for the boot, and warm, where a
//! machine is ready; each by the same job in the jail in the same run. One JSON line a figure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kodo_jail::{Helper, Jail, JailConfig};
use kodo_microvm::{Acceleration, Launcher, MicroVm, MicroVmConfig};
use kodo_sandbox::{JobSpec, Sandbox};
use serde_json::json;

/// Rounds of each figure.
const ROUNDS: usize = 10;

fn main() {
    // This program is what its own jail and its own machines are started by.
    kodo_jail::be_the_helper_if_asked();
    kodo_microvm::be_the_emulator_if_asked();
    // Run by `cargo test --benches` or a list of tests, there is nothing to do.
    if !std::env::args().any(|it| it == "--bench") {
        return;
    }
    if let Err(error) = measure() {
        eprintln!("machines: {error}");
        std::process::exit(1);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "where the task has put what it made"
)]
fn folder() -> PathBuf {
    std::env::var_os("SBX_MICROVM_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.data/microvm")),
        PathBuf::from,
    )
}

fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = |ready| MicroVmConfig {
            folder: folder(),
            acceleration: Acceleration::Tcg,
            ready,
            launcher: Launcher::default(),
            ..MicroVmConfig::default()
        };
        let jail = Jail::new(JailConfig {
            helper: Helper::default(),
            ..JailConfig::default()
        });
        let (cold, warm) = (
            MicroVm::start(config(0)).await?,
            MicroVm::start(config(1)).await?,
        );
        let job = JobSpec::new(["/bin/true"]);
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..ROUNDS {
            // The next one has come up: what is measured is the job.
            warm.ready().await;
            let sandboxes: [&dyn Sandbox; 3] = [&jail, &warm, &cold];
            for (times, sandbox) in times.iter_mut().zip(sandboxes) {
                let began = Instant::now();
                let result = sandbox.run(&job).await?;
                times.push(began.elapsed());
                if result.exit_code() != 0 {
                    return Err(format!("{}: {:?}", sandbox.name(), result.ended).into());
                }
            }
        }
        let mut jailed = 0.0;
        for (name, times) in ["process", "microvm tcg warm", "microvm tcg cold"]
            .iter()
            .zip(&mut times)
        {
            times.sort();
            let at =
                |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            if *name == "process" {
                jailed = at(0.5);
            }
            println!(
                "{}",
                json!({
                    "figure": "microvm_job", "launcher": name, "rounds": ROUNDS, "unit": "ms",
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
