//! The sandbox's settings (SBX).

use std::path::PathBuf;
use std::time::Duration;

use kodo_jail::gvisor::{GvisorConfig, Platform};
use kodo_jail::{CgroupPolicy, JailConfig};
use kodo_microvm::{Acceleration, MicroVmConfig};
use kodo_sandbox::Limits;

use super::Flags;
use crate::environment;

/// Which sandbox carries out tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxMode {
    /// The one that runs nothing.
    Mock,
    /// The one that runs programs.
    Live,
}

impl SandboxMode {
    pub(super) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let mode = flags.sbx_mode();
        mode.one_of(&["mock", "live"])?;
        Ok(match mode.value.as_str() {
            "live" => Self::Live,
            _ => Self::Mock,
        })
    }
}

/// The most that a call of a plan may ask for.
pub(super) fn most(flags: &Flags) -> anyhow::Result<Limits> {
    let wall: u64 = flags.sbx_max_wall_ms().number(1, 24 * 3600 * 1000)?;
    let memory: u64 = flags.sbx_max_memory_mib().number(8, 256 * 1024)?;
    Ok(Limits {
        wall: Duration::from_millis(wall),
        memory_bytes: memory << 20,
        ..Limits::most()
    })
}

/// Where secrets are.
pub(super) fn secrets_dir(flags: &Flags) -> anyhow::Result<Option<PathBuf>> {
    let raw = flags.sbx_secrets_dir();
    if raw.value.is_empty() {
        return Ok(None);
    }
    let folder = PathBuf::from(&raw.value);
    if !folder.is_absolute() || !folder.is_dir() {
        return raw.refuse("the absolute path of an existing folder");
    }
    Ok(Some(folder))
}

/// How much stands between a job and the machine. The order is that of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isolation {
    /// The machine's own kernel, and everything it has to hold a process.
    Process,
    /// A kernel in a program: gVisor's.
    Gvisor,
    /// A kernel of its own in a virtual machine of its own.
    MicroVm,
}

impl Isolation {
    /// Its word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Gvisor => "gvisor",
            Self::MicroVm => "microvm",
        }
    }
}

/// Which live sandbox, and how it is made.
#[derive(Debug, Clone)]
pub(crate) struct SandboxSettings {
    /// The one that must be used; the strongest there is where none is named.
    pub(crate) provider: Option<Isolation>,
    /// The weakest that will do.
    pub(crate) least: Isolation,
    /// How jobs are jailed, where they are processes.
    pub(crate) jail: JailConfig,
    /// How sandboxes of gVisor's are made, but for the jail that they are in.
    pub(crate) gvisor: GvisorConfig,
    /// How machines are made, where they have one each.
    pub(crate) microvm: MicroVmConfig,
}

impl SandboxSettings {
    pub(super) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let raw = flags.sbx_provider();
        raw.one_of(&["auto", "process", "gvisor", "microvm"])?;
        let provider = match raw.value.as_str() {
            "process" => Some(Isolation::Process),
            "gvisor" => Some(Isolation::Gvisor),
            "microvm" => Some(Isolation::MicroVm),
            _ => None,
        };
        let least = flags.sbx_min_isolation();
        least.one_of(&["process", "gvisor", "microvm"])?;
        let least = match least.value.as_str() {
            "microvm" => Isolation::MicroVm,
            "gvisor" => Isolation::Gvisor,
            _ => Isolation::Process,
        };
        if provider.is_some_and(|provider| provider < least) {
            return raw.refuse(&format!(
                "what is at least as strong as SBX_MIN_ISOLATION={}",
                least.as_str()
            ));
        }
        Ok(Self {
            provider,
            least,
            jail: jail_config(flags)?,
            gvisor: gvisor_config(flags)?,
            microvm: microvm_config(flags)?,
        })
    }
}

fn gvisor_config(flags: &Flags) -> anyhow::Result<GvisorConfig> {
    let raw = flags.sbx_gvisor_platform();
    let words = Platform::ALL.map(Platform::as_str);
    raw.one_of(&words)?;
    Ok(GvisorConfig {
        runsc: flags.sbx_runsc().filled("a path or a name")?.into(),
        search: environment::variable("PATH"),
        platform: Platform::of(&raw.value).unwrap_or_default(),
        ..GvisorConfig::default()
    })
}

fn microvm_config(flags: &Flags) -> anyhow::Result<MicroVmConfig> {
    let raw = flags.sbx_microvm_accel();
    raw.one_of(&["kvm", "tcg"])?;
    Ok(MicroVmConfig {
        folder: flags.sbx_microvm_dir().filled("a folder")?.into(),
        acceleration: match raw.value.as_str() {
            "tcg" => Acceleration::Tcg,
            _ => Acceleration::Kvm,
        },
        ready: flags.sbx_microvm_ready().number(0, 64)?,
        most: flags.sbx_microvm_max().number(1, 1024)?,
        memory_mib: flags.sbx_microvm_memory_mib().number(160, 1024 * 1024)?,
        ..MicroVmConfig::default()
    })
}

/// How the live sandbox jails.
fn jail_config(flags: &Flags) -> anyhow::Result<JailConfig> {
    let raw = flags.sbx_cgroup();
    let cgroup = match raw.value.as_str() {
        "auto" => CgroupPolicy::Auto,
        "require" => CgroupPolicy::Require,
        path if path.starts_with('/') => CgroupPolicy::Below(path.into()),
        _ => return raw.refuse("auto, require, or the absolute path of a delegated cgroup"),
    };
    let raw = flags.sbx_read_only();
    let read_only: Vec<PathBuf> = raw
        .value
        .split(':')
        .filter(|it| !it.is_empty())
        .map(PathBuf::from)
        .collect();
    let good = |path: &PathBuf| path.is_absolute() && path.is_dir() && path.parent().is_some();
    if !read_only.iter().all(good) {
        return raw.refuse("a list of absolute paths of existing folders, with ':' between them,");
    }
    Ok(JailConfig {
        cgroup,
        read_only,
        ..JailConfig::default()
    })
}
