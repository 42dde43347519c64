//! gVisor's platforms: how its kernel intercepts a job's system calls.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The device of KVM.
const KVM: &str = "/dev/kvm";

/// How gVisor's kernel intercepts a job's system calls. Whether one works is tried at the start; another one is never used
/// instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// By signals: gVisor's own choice since 2023, on every machine.
    #[default]
    Systrap,
    /// By `ptrace`: for an older `runsc`, and slower.
    Ptrace,
    /// By KVM: for machines that are not virtual ones themselves.
    Kvm,
}

impl Platform {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Systrap, Self::Ptrace, Self::Kvm];

    /// Its name in `runsc` and in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systrap => "systrap",
            Self::Ptrace => "ptrace",
            Self::Kvm => "kvm",
        }
    }

    /// The platform of this name.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }

    /// Devices that it needs.
    pub(crate) fn devices(self) -> Vec<PathBuf> {
        match self {
            Self::Kvm => vec![PathBuf::from(KVM)],
            Self::Systrap | Self::Ptrace => Vec::new(),
        }
    }

    /// Groups of the machine that may use them.
    pub(crate) fn groups(self) -> Vec<u32> {
        let group = |path: &Path| fs::metadata(path).map(|it| it.gid()).ok();
        // Group 0 is never kept: it has rights on the machine.
        self.devices()
            .iter()
            .filter_map(|path| group(path))
            .filter(|group| *group != 0)
            .collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_known_by_its_exact_name_alone() {
        for platform in Platform::ALL {
            assert_eq!(Platform::of(platform.as_str()), Some(platform));
        }
        for word in ["", "Systrap", "systrap ", "kvm2"] {
            assert_eq!(Platform::of(word), None, "{word:?}");
        }
    }
}
