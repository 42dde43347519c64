//! Which sandbox this process has.

use std::sync::Arc;

use anyhow::bail;
use kodo_jail::gvisor::{Gvisor, GvisorConfig};
use kodo_jail::{Jail, JailConfig};
use kodo_microvm::{MicroVm, MicroVmConfig};
use kodo_sandbox::{JobResult, MockSandbox, Sandbox, SandboxError};

use crate::settings::{Isolation, SandboxMode, SandboxSettings, Settings};

/// The sandbox that carries out tool calls. A live one has held a job before this returns.
///
/// # Errors
/// One line: what this machine lacks, and what to do about it. Never a weaker sandbox instead.
pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Arc<dyn Sandbox>> {
    if settings.sbx_mode == SandboxMode::Mock {
        return Ok(Arc::new(MockSandbox::with_delay(settings.sbx_mock_delay)));
    }
    let mut lacking = Vec::new();
    for rung in rungs(&settings.live) {
        match tried(&settings.live, rung).await {
            Ok((sandbox, tried)) => {
                for reason in lacking {
                    tracing::info!(reason, "a stronger sandbox is not there");
                }
                let memory = tried.enforced.get("memory").map(String::as_str);
                tracing::info!(
                    provider = sandbox.name(),
                    memory,
                    "the sandbox has held a job that does nothing"
                );
                return Ok(sandbox);
            }
            Err(reason) => lacking.push(format!("{}: {reason}", rung.as_str())),
        }
    }
    bail!(
        "SBX_MODE=live does not work on this machine: {}",
        none(&settings.live, &lacking)
    )
}

/// The live sandbox for one job: nothing is kept ready, and nothing tried out but the job itself.
///
/// # Errors
/// As [`of`].
pub(crate) async fn for_one_job(settings: &SandboxSettings) -> anyhow::Result<Arc<dyn Sandbox>> {
    let mut lacking = Vec::new();
    for rung in rungs(settings) {
        match start(settings, rung, For::OneJob).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(error) => lacking.push(format!("{}: {}", rung.as_str(), explained(&error))),
        }
    }
    bail!("sandbox_refused: {}", none(settings, &lacking))
}

/// What may be used, the strongest first. There is no way down from what was asked for.
pub(crate) fn rungs(settings: &SandboxSettings) -> Vec<Isolation> {
    [Isolation::MicroVm, Isolation::Gvisor, Isolation::Process]
        .into_iter()
        .filter(|rung| *rung >= settings.least)
        .filter(|rung| settings.provider.is_none_or(|provider| provider == *rung))
        .collect()
}

fn none(settings: &SandboxSettings, lacking: &[String]) -> String {
    let asked = match settings.provider {
        Some(provider) => format!("SBX_PROVIDER={}", provider.as_str()),
        None => format!("SBX_MIN_ISOLATION={}", settings.least.as_str()),
    };
    format!("nothing here is {asked}: {}", lacking.join("; "))
}

/// Helpers of the jail that a service keeps started. Jobs that begin at the same moment share the wait of one.
const READY_HELPERS: usize = 1;

/// What a sandbox is started for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// One job, after which nothing has to be ready for another.
    OneJob,
    /// Jobs to come.
    Many,
}

async fn start(
    settings: &SandboxSettings,
    rung: Isolation,
    what_for: For,
) -> Result<Arc<dyn Sandbox>, SandboxError> {
    let ready = |many| match what_for {
        For::OneJob => 0,
        For::Many => many,
    };
    match rung {
        Isolation::Process => Ok(Arc::new(Jail::new(JailConfig {
            ready: ready(READY_HELPERS),
            ..settings.jail.clone()
        }))),
        Isolation::MicroVm => {
            let config = MicroVmConfig {
                ready: ready(settings.microvm.ready),
                ..settings.microvm.clone()
            };
            Ok(Arc::new(MicroVm::start(config).await?))
        }
        Isolation::Gvisor => {
            let config = GvisorConfig {
                jail: settings.jail.clone(),
                ..settings.gvisor.clone()
            };
            Ok(Arc::new(Gvisor::start(config).await?))
        }
    }
}

/// A sandbox of this strength that has held a job that does nothing, or why there is none.
///
/// # Errors
/// What is missing, and what to do about it.
pub(crate) async fn tried(
    settings: &SandboxSettings,
    rung: Isolation,
) -> Result<(Arc<dyn Sandbox>, JobResult), String> {
    let job = kodo_sandbox::JobSpec::new(["/bin/sh", "-c", "exit 0"]);
    let held = async {
        let sandbox = start(settings, rung, For::Many).await?;
        let tried = sandbox.run(&job).await?;
        Ok::<_, SandboxError>((sandbox, tried))
    };
    match held.await {
        Ok((_, tried)) if tried.exit_code() != 0 => Err(format!(
            "a job that does nothing ended with {}: {}",
            tried.exit_code(),
            tried.stderr.text().trim()
        )),
        Ok(held) => Ok(held),
        Err(error) => Err(explained(&error)),
    }
}

/// An error, with what to do about it.
pub(crate) fn explained(error: &SandboxError) -> String {
    let hint = kodo_microvm::hint_for(error)
        .or_else(|| kodo_jail::gvisor::hint_for(error))
        .or_else(|| kodo_jail::hint_for(error));
    hint.map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"))
}
