//! Chooses and starts the sandbox that this process uses.

use std::sync::Arc;

use anyhow::bail;
use kodo_jail::gvisor::{Gvisor, GvisorConfig};
use kodo_jail::{Jail, JailConfig};
#[cfg(feature = "microvm")]
use kodo_microvm::{Acceleration, MicroVm, MicroVmConfig};
use kodo_sandbox::{JobResult, JobSpec, MockSandbox, Sandbox, SandboxError};

use crate::settings::{Isolation, SandboxMode, SandboxSettings, Settings};

/// The sandbox that carries out tool calls. A live one has run a job that does nothing before this returns.
///
/// # Errors
/// One line: what each provider that may be used lacks on this machine, and what to do about it. A weaker provider than
/// the settings allow is never used instead.
pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Arc<dyn Sandbox>> {
    if settings.sbx_mode == SandboxMode::Mock {
        return Ok(Arc::new(MockSandbox::with_delay(settings.sbx_mock_delay)));
    }
    let mut failed = Vec::new();
    for provider in candidates(&settings.live) {
        match tried(&settings.live, provider).await {
            Ok((sandbox, tried)) => {
                for reason in failed {
                    tracing::info!(reason, "a stronger sandbox is not available");
                }
                let memory = tried.enforced.get("memory").map(String::as_str);
                tracing::info!(
                    provider = sandbox.name(),
                    memory,
                    "the sandbox has run a job that does nothing"
                );
                return Ok(sandbox);
            }
            Err(reason) => failed.push(format!("{}: {reason}", provider.as_str())),
        }
    }
    bail!(
        "SBX_MODE=live does not work on this machine: {}",
        none_works(&settings.live, &failed)
    )
}

/// The live sandbox for one job: nothing is kept ready for another one, and no trial job is run first.
///
/// # Errors
/// As [`of`].
pub(crate) async fn for_one_job(settings: &SandboxSettings) -> anyhow::Result<Arc<dyn Sandbox>> {
    let mut failed = Vec::new();
    for provider in candidates(settings) {
        match start(settings, provider, Purpose::OneJob).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(error) => failed.push(format!("{}: {}", provider.as_str(), explained(&error))),
        }
    }
    bail!("sandbox_refused: {}", none_works(settings, &failed))
}

/// The providers that the settings allow, the strongest first.
pub(crate) fn candidates(settings: &SandboxSettings) -> Vec<Isolation> {
    [Isolation::MicroVm, Isolation::Gvisor, Isolation::Process]
        .into_iter()
        .filter(|provider| *provider >= settings.least)
        .filter(|provider| settings.provider.is_none_or(|asked| asked == *provider))
        .collect()
}

fn none_works(settings: &SandboxSettings, failed: &[String]) -> String {
    let asked = match settings.provider {
        Some(provider) => format!("SBX_PROVIDER={}", provider.as_str()),
        None => format!("SBX_MIN_ISOLATION={}", settings.least.as_str()),
    };
    format!(
        "no sandbox that {asked} allows works here: {}",
        failed.join("; ")
    )
}

/// Helpers of the jail that a service keeps started. Jobs that begin at the same moment share the wait of one.
const READY_HELPERS: usize = 1;

/// What a sandbox is started for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// One job: nothing has to be ready for another one.
    OneJob,
    /// All the jobs of a service.
    Service,
}

async fn start(
    settings: &SandboxSettings,
    provider: Isolation,
    purpose: Purpose,
) -> Result<Arc<dyn Sandbox>, SandboxError> {
    let ready = |many| match purpose {
        Purpose::OneJob => 0,
        Purpose::Service => many,
    };
    match provider {
        Isolation::Process => Ok(Arc::new(Jail::new(JailConfig {
            ready: ready(READY_HELPERS),
            ..settings.jail.clone()
        }))),
        #[cfg(feature = "microvm")]
        Isolation::MicroVm => {
            let microvm = &settings.microvm;
            let config = MicroVmConfig {
                folder: microvm.folder.clone(),
                acceleration: if microvm.emulated {
                    Acceleration::Tcg
                } else {
                    Acceleration::Kvm
                },
                ready: ready(microvm.ready),
                most: microvm.most,
                memory_mib: microvm.memory_mib,
                ..MicroVmConfig::default()
            };
            Ok(Arc::new(MicroVm::start(config).await?))
        }
        #[cfg(not(feature = "microvm"))]
        Isolation::MicroVm => Err(SandboxError::Refused {
            mechanism: "microvm".to_owned(),
            reason: "this kodo was built without the cargo feature `microvm`".to_owned(),
        }),
        Isolation::Gvisor => {
            let config = GvisorConfig {
                jail: settings.jail.clone(),
                ..settings.gvisor.clone()
            };
            Ok(Arc::new(Gvisor::start(config).await?))
        }
    }
}

/// Starts a provider and runs a job that does nothing in it. Returns the sandbox, and the result of that job.
///
/// # Errors
/// What is missing, and what to do about it.
pub(crate) async fn tried(
    settings: &SandboxSettings,
    provider: Isolation,
) -> Result<(Arc<dyn Sandbox>, JobResult), String> {
    let trial = async {
        let sandbox = start(settings, provider, Purpose::Service).await?;
        let tried = sandbox
            .run(&JobSpec::new(["/bin/sh", "-c", "exit 0"]))
            .await?;
        Ok::<_, SandboxError>((sandbox, tried))
    };
    match trial.await {
        Ok((_, tried)) if tried.exit_code() != 0 => Err(format!(
            "a job that does nothing ended with {}: {}",
            tried.exit_code(),
            tried.stderr.text().trim()
        )),
        Ok(started) => Ok(started),
        Err(error) => Err(explained(&error)),
    }
}

/// An error, with what to do about it.
pub(crate) fn explained(error: &SandboxError) -> String {
    #[cfg(feature = "microvm")]
    let hint = kodo_microvm::hint_for(error);
    #[cfg(not(feature = "microvm"))]
    let hint = None;
    let hint = hint
        .or_else(|| kodo_jail::gvisor::hint_for(error))
        .or_else(|| kodo_jail::hint_for(error));
    hint.map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"))
}

#[cfg(all(test, not(feature = "microvm")))]
mod tests {
    use super::*;
    use crate::settings::tests::load;

    #[tokio::test]
    async fn a_provider_that_this_binary_was_built_without_is_refused_for_that_reason() {
        let settings = load(&["--sbx-mode=live", "--sbx-provider=microvm"]).unwrap();
        let refused = of(&settings).await.err().unwrap().to_string();
        assert_eq!(
            refused,
            "SBX_MODE=live does not work on this machine: no sandbox that SBX_PROVIDER=microvm allows works here: \
             microvm: the sandbox refuses the job: microvm: this kodo was built without the cargo feature `microvm` \
             (see docs/sandbox.md)"
        );
    }
}
