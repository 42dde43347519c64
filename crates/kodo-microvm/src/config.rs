//! How virtual machines are made.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::emulator::Launcher;

/// The provider's name.
pub(crate) const NAME: &str = "microvm";
/// The device of KVM.
pub(crate) const KVM_DEVICE: &str = "/dev/kvm";

/// How machines are made.
#[derive(Clone, Debug)]
pub struct MicroVmConfig {
    /// The images that `sbx:microvm:build` has made.
    pub folder: PathBuf,
    /// What executes the guest's instructions.
    pub acceleration: Acceleration,
    /// Machines that are kept ready.
    pub ready: usize,
    /// Jobs at the same time. Further ones wait.
    pub most: usize,
    /// Memory of a machine, in MiB. A job that needs more waits for a machine of its own.
    pub memory_mib: u64,
    /// How this program is started again to become the emulator.
    pub launcher: Launcher,
}

impl Default for MicroVmConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from(".data/microvm"),
            acceleration: Acceleration::Kvm,
            ready: 1,
            most: 4,
            memory_mib: 768,
            launcher: Launcher::default(),
        }
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// The processor, by KVM, if a guest comes up with it.
    #[default]
    Kvm,
    /// The emulator: many times slower, and without the processor's isolation. Used only if it is asked for.
    Tcg,
}

impl Acceleration {
    /// Its name in QEMU and in the settings.
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

    /// How long a machine may take beyond the job's own time: to make its jail, to end it, to send the result.
    pub(crate) fn grace(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(30),
            Self::Tcg => Duration::from_secs(90),
        }
    }

    /// The group that may use the device, for an emulator that is not user 0.
    pub(crate) fn groups(self) -> Vec<u32> {
        match self {
            Self::Kvm => fs::metadata(KVM_DEVICE)
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
