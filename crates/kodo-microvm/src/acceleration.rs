//! Who executes the guest's instructions.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use kodo_sandbox::SandboxError;

use crate::machine::{Machine, Plan};
use crate::provider::MicroVmConfig;

/// What a refusal names.
pub(crate) const MECHANISM: &str = "kvm";
/// The device of KVM.
const DEVICE: &str = "/dev/kvm";
/// How long the kernel may take to boot by KVM in the probe. A processor that virtualises does it in less than a
/// second; what only looks like one (a kernel that emulates each instruction) takes minutes or never gets there.
const PROBE: Duration = Duration::from_secs(5);

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor, by KVM, if a guest proves to run.
    #[default]
    Kvm,
    /// The emulator: many times slower, and without the processor's walls. Only ever because somebody asked.
    Tcg,
}

impl Acceleration {
    /// The word that QEMU and the settings have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// How long a machine may take to come up.
    pub(crate) fn boot(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(20),
            Self::Tcg => Duration::from_secs(120),
        }
    }

    /// How long a machine may take beyond the job's own time: to put up its jail, to clear up, to hand over.
    pub(crate) fn grace(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(30),
            Self::Tcg => Duration::from_secs(90),
        }
    }

    /// The group that may use the device, for an emulator that is not user 0.
    pub(crate) fn groups(self) -> Vec<u32> {
        match self {
            Self::Kvm => fs::metadata(DEVICE)
                .map(|it| vec![it.gid()])
                .unwrap_or_default(),
            Self::Tcg => Vec::new(),
        }
    }
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Boots the kernel by KVM and throws the machine away. That there is a device, that it opens, and that it makes
/// machines proves nothing: some make them and then emulate each instruction.
///
/// # Errors
/// [`SandboxError::Refused`] with what was seen.
pub fn probe_kvm(config: &MicroVmConfig) -> Result<Duration, SandboxError> {
    let refused = |reason: String| SandboxError::Refused {
        mechanism: MECHANISM.to_owned(),
        reason,
    };
    fs::File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| refused(format!("{DEVICE}: {error}")))?;
    let mut plan = Plan::of(&MicroVmConfig {
        acceleration: Acceleration::Kvm,
        ..config.clone()
    })?;
    plan.boot = PROBE;
    match Machine::boot(&plan) {
        Ok(machine) => Ok(machine.booted_in()),
        Err(SandboxError::Unavailable { reason }) => Err(refused(format!(
            "{DEVICE} is there, but a guest does not come up with it{}: {reason}",
            if virtualises() {
                ""
            } else {
                ", and the processor says neither vmx nor svm"
            }
        ))),
        Err(other) => Err(other),
    }
}

fn virtualises() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}
