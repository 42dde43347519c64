//! Finds out whether KVM works on this machine, by booting a guest with it.

use std::fs;
use std::time::Duration;

use kodo_sandbox::SandboxError;

use crate::config::{Acceleration, KVM_DEVICE as DEVICE, MicroVmConfig};
use crate::machine::Machine;
use crate::plan::Plan;

/// What a refusal names.
pub(crate) const MECHANISM: &str = "kvm";
/// How long the guest may take to boot. A processor with hardware virtualisation needs less than a second; a device that
/// only emulates it needs minutes, or never gets there.
const PROBE: Duration = Duration::from_secs(5);

/// Boots a guest with KVM and ends it. Returns how long that took. A device that exists, opens and makes machines proves
/// nothing: some make machines and then emulate each instruction.
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
            if has_virtualisation() {
                ""
            } else {
                ", and the processor says neither vmx nor svm"
            }
        ))),
        Err(other) => Err(other),
    }
}

fn has_virtualisation() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}
