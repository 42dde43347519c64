//! The provider `gvisor`: where a job is asked for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use kodo_sandbox::{JobResult, JobSpec, Sandbox, SandboxError};

use super::bundle;
use super::platform::Platform;
use super::runsc;
use crate::host::enclosure::Enclosure;
use crate::{Jail, JailConfig};

/// The provider's name.
const NAME: &str = "gvisor";
/// What a refusal names if there is no `runsc`, or it does not come up.
const MECHANISM: &str = "gvisor";
/// What a refusal names if no sandbox comes up by the platform that was asked for.
const PLATFORM: &str = "gvisor-platform";
/// What the jail names if `runsc` cannot be executed.
const EXECUTED: &str = "enclosure";
/// What `runsc` prints for a platform that it does not have.
const UNKNOWN: [&str; 2] = ["unknown platform", "invalid platform"];
/// How long a sandbox may take to come up in the trial: it does in less than a second, or never.
const TRIAL: Duration = Duration::from_secs(15);
/// The same for one that has proved to come up, on a machine that may be busy.
const START: Duration = Duration::from_secs(60);
/// Memory of gVisor's kernel and its file server, in bytes, on top of a job's.
const OWN_MEMORY: u64 = 192 << 20;

/// How sandboxes are made.
#[derive(Clone, Debug)]
pub struct GvisorConfig {
    /// The operator's `runsc`: a path, or a name that is looked for in `search`.
    pub runsc: PathBuf,
    /// Folders of programs, as `PATH` has them.
    pub search: Option<OsString>,
    /// How gVisor intercepts a job's system calls.
    pub platform: Platform,
    /// How long a sandbox may take to come up in the trial.
    pub trial: Duration,
    /// The jail around all of it: cgroups, what jobs may read, how our own program is started.
    pub jail: JailConfig,
}

impl Default for GvisorConfig {
    fn default() -> Self {
        Self {
            runsc: PathBuf::from("runsc"),
            search: None,
            platform: Platform::default(),
            trial: TRIAL,
            jail: JailConfig::default(),
        }
    }
}

/// The provider `gvisor`.
#[derive(Clone, Debug)]
pub struct Gvisor {
    jail: Jail,
}

impl Gvisor {
    /// Finds `runsc`, and proves in bounded time that a sandbox comes up by the platform that is asked for.
    ///
    /// # Errors
    /// [`SandboxError::Refused`], naming what is missing. Never another platform instead.
    pub async fn start(config: GvisorConfig) -> Result<Self, SandboxError> {
        let refused = |mechanism: &str, reason: String| SandboxError::Refused {
            mechanism: mechanism.to_owned(),
            reason,
        };
        let program = runsc::find(&config.runsc, config.search.as_deref())
            .map_err(|reason| refused(MECHANISM, reason))?;
        let platform = config.platform;
        for device in platform.devices() {
            fs::File::options()
                .read(true)
                .write(true)
                .open(&device)
                .map_err(|error| {
                    let reason = format!("platform {platform}: {}: {error}", device.display());
                    refused(PLATFORM, reason)
                })?;
        }
        let around = |start| {
            let enclosure = Enclosure {
                provider: NAME,
                mechanism: MECHANISM,
                program: program.clone(),
                arguments: bundle::arguments(platform),
                config: bundle::config(),
                devices: platform.devices(),
                groups: platform.groups(),
                own_memory: OWN_MEMORY,
                start,
                enforced: enforced(platform),
            };
            Jail::around(config.jail.clone(), enclosure)
        };
        let tried = around(config.trial).try_out().await;
        match tried {
            Ok(result) if result.exit_code() == 0 => Ok(Self {
                jail: around(START),
            }),
            Ok(result) => Err(refused(
                PLATFORM,
                format!(
                    "platform {platform}: a job that does nothing ended with {}: {}",
                    result.exit_code(),
                    result.stderr.text().trim()
                ),
            )),
            Err(SandboxError::Refused { mechanism, reason }) if mechanism == MECHANISM => {
                let old = UNKNOWN.iter().any(|words| reason.contains(words));
                let program = program.display();
                Err(refused(
                    PLATFORM,
                    if old {
                        format!("platform {platform}: {program} is too old to have it: {reason}")
                    } else {
                        format!("platform {platform}: {program}: {reason}")
                    },
                ))
            }
            Err(SandboxError::Refused { mechanism, reason }) if mechanism == EXECUTED => Err(
                refused(MECHANISM, format!("{}: {reason}", program.display())),
            ),
            // It came up and then ended, or broke the protocol.
            Err(SandboxError::Unavailable { reason }) => {
                Err(refused(PLATFORM, format!("platform {platform}: {reason}")))
            }
            Err(other) => Err(other),
        }
    }

    /// Runs a job that does nothing.
    ///
    /// # Errors
    /// Why there is no sandbox.
    pub async fn try_out(&self) -> Result<JobResult, SandboxError> {
        self.run(&JobSpec::new(["/bin/sh", "-c", "exit 0"])).await
    }
}

/// What to do about a refusal of this provider: a sentence without a capital and a full stop.
#[must_use]
pub fn hint_for(error: &SandboxError) -> Option<&'static str> {
    let SandboxError::Refused { mechanism, reason } = error else {
        return None;
    };
    match mechanism.as_str() {
        MECHANISM => Some(
            "install runsc, gVisor's own program, where every user can run it, and name it with SBX_RUNSC if it is not on PATH",
        ),
        PLATFORM if reason.contains("too old") => Some(
            "install a current runsc, or ask for what this one has with SBX_GVISOR_PLATFORM=ptrace, which is slower",
        ),
        PLATFORM => Some(
            "name a platform that works on this machine with SBX_GVISOR_PLATFORM: systrap works wherever the jail does, \
             ptrace is for an older runsc, kvm for hardware that virtualises",
        ),
        _ => None,
    }
}

/// What confines a job, in words; the jail adds what limits memory and processes.
fn enforced(platform: Platform) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (
            "kernel",
            format!("gVisor's, of its own, by the platform {platform}"),
        ),
        (
            "user",
            "an ordinary one in the sandbox without capabilities, and one without rights of the machine around it"
                .to_owned(),
        ),
        (
            "namespaces",
            "gVisor's; around it user, mount, pid, net, ipc, uts, cgroup of the machine".to_owned(),
        ),
        ("network", "none but a loopback of its own".to_owned()),
        (
            "landlock",
            "none: gVisor's kernel has none".to_owned(),
        ),
        (
            "seccomp",
            "list of allowed system calls in the sandbox; gVisor's own around it".to_owned(),
        ),
        ("proc", "of the sandbox".to_owned()),
        ("disk", "tmpfs of the sandbox".to_owned()),
        (
            "inodes",
            "counted while the job runs: it can be over the bound until the next count".to_owned(),
        ),
        (
            "wall",
            "the first process of the sandbox; then the service".to_owned(),
        ),
        ("output", "the service".to_owned()),
    ])
}

#[async_trait]
impl Sandbox for Gvisor {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, spec: &JobSpec) -> Result<JobResult, SandboxError> {
        match self.jail.run(spec).await {
            // Sandboxes come up here, as the trial has shown: that one did not is transient.
            Err(SandboxError::Refused { mechanism, reason }) if mechanism == MECHANISM => {
                Err(SandboxError::Unavailable { reason })
            }
            other => other,
        }
    }
}
