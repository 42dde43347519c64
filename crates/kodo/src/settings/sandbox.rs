//! The settings of the sandbox (SBX).

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use kodo_contract::TreeBounds;
use kodo_jail::gvisor::{GvisorConfig, Platform};
use kodo_jail::{CgroupPolicy, JailConfig};
use kodo_sandbox::Limits;

use super::given::{Given, Refusal};
use super::parsers::{absolute_folder, boolean, filled, milliseconds, number, word};
use crate::environment;

/// Folders by colons. A name of its own, because clap would take `Vec` for an argument that is repeated.
type Folders = Vec<PathBuf>;

/// Which sandbox there is, and how it is made, as it was given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sandbox (SBX)")]
pub(super) struct SandboxFlags {
    /// What carries out tool calls
    #[arg(long, env, value_name = "MODE", default_value = "mock")]
    pub(super) sbx_mode: SandboxMode,
    /// How long the mock sandbox pretends to work, in milliseconds
    #[arg(long = "sbx-mock-delay-ms", env = "SBX_MOCK_DELAY_MS", value_name = "MS", default_value = "0", value_parser = milliseconds)]
    pub(super) sbx_mock_delay: Duration,
    /// The live sandbox
    #[arg(long, env, value_name = "PROVIDER", default_value = "auto")]
    sbx_provider: Provider,
    /// The weakest live sandbox that will do
    #[arg(long, env, value_name = "PROVIDER", default_value = "process")]
    sbx_min_isolation: Isolation,
    /// What bounds memory and processes of a job: auto, require, or a delegated cgroup (an absolute path)
    #[arg(long, env, value_name = "CGROUP", default_value = "auto", value_parser = cgroup)]
    sbx_cgroup: CgroupPolicy,
    /// Further folders that jobs can read, absolute, with ':' between them
    #[arg(long, env, value_name = "FOLDERS", default_value = "", hide_default_value = true, value_parser = folders)]
    sbx_read_only: Folders,
    /// Whether jobs may trace their own processes, as strace and gdb do
    #[arg(long, env, value_name = "BOOL", action = ArgAction::Set, default_value = "false", value_parser = boolean)]
    sbx_allow_ptrace: bool,
    /// How long a job that the kernel is too short of something to start is tried again, in milliseconds
    #[arg(long = "sbx-shortage-ms", env = "SBX_SHORTAGE_MS", value_name = "MS", default_value = "120000", value_parser = milliseconds)]
    sbx_shortage: Duration,
    /// gVisor's program runsc: a path, or a name on PATH
    #[arg(long, env, value_name = "FILE", default_value = "runsc", value_parser = filled("a path or a name"))]
    sbx_runsc: String,
    /// How gVisor intercepts system calls: systrap, ptrace or kvm; one that does not work is refused
    #[arg(long, env, value_name = "PLATFORM", default_value = "systrap", value_parser = word(&PLATFORMS))]
    sbx_gvisor_platform: Platform,
    /// What microVMs are made of: the folder that the task sbx:microvm:build fills
    #[arg(long, env, value_name = "DIR", default_value = ".data/microvm", value_parser = filled("a folder"))]
    sbx_microvm_dir: String,
    /// What executes a microVM: kvm, if a guest proves to run, or tcg, software that is many times slower
    #[arg(long, env, value_name = "WORD", action = ArgAction::Set, default_value = "kvm", value_parser = word(&[("kvm", false), ("tcg", true)]))]
    sbx_microvm_accel: bool,
    /// MicroVMs that a service keeps booted, so that a job does not wait for one
    #[arg(long, env, value_name = "COUNT", default_value = "1", value_parser = number::<usize>(0, 64))]
    sbx_microvm_ready: usize,
    /// Jobs in microVMs at the same time; further ones wait
    #[arg(long, env, value_name = "COUNT", default_value = "4", value_parser = number::<usize>(1, 1024))]
    sbx_microvm_max: usize,
    /// Memory of a microVM in MiB; a job that needs more waits for a larger one of its own
    #[arg(long, env, value_name = "MIB", default_value = "768", value_parser = number::<u64>(160, 1024 * 1024))]
    sbx_microvm_memory_mib: u64,
    /// Longest time that a call of a plan may ask for, in milliseconds
    #[arg(long, env, value_name = "MS", default_value = "3600000", value_parser = number::<u64>(1, 24 * 3600 * 1000))]
    sbx_max_wall_ms: u64,
    /// Most memory that a call of a plan may ask for, in MiB
    #[arg(long, env, value_name = "MIB", default_value = "4096", value_parser = number::<u64>(8, 256 * 1024))]
    sbx_max_memory_mib: u64,
    /// Most that the workspace of a run is carried from one call to the next with, in MiB
    #[arg(long, env, value_name = "MIB", default_value = "1024", value_parser = number::<u64>(1, 1024 * 1024))]
    sbx_workspace_mib: u64,
    /// Files, folders and links that it has at most
    #[arg(long, env, value_name = "COUNT", default_value = "100000", value_parser = number::<u64>(1, 1_000_000))]
    sbx_workspace_entries: u64,
    /// Folder of the secrets that jobs can be given by name, one file each
    #[arg(long, env, value_name = "DIR", value_parser = absolute_folder)]
    pub(super) sbx_secrets_dir: Option<PathBuf>,
}

const PLATFORMS: [(&str, Platform); 3] = [
    ("systrap", Platform::Systrap),
    ("ptrace", Platform::Ptrace),
    ("kvm", Platform::Kvm),
];

/// Which sandbox carries out tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// nothing: every call ends with 0
    Mock,
    /// programs run in the sandbox of SBX_PROVIDER
    Live,
}

/// The live sandbox, as `SBX_PROVIDER` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// the strongest that works here
    Auto,
    /// processes in a jail, on this machine's kernel
    Process,
    /// the same, on the kernel in a program that is gVisor
    Gvisor,
    /// virtual machines
    #[value(name = "microvm")]
    MicroVm,
}

/// The providers of live sandboxes, the weakest isolation first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Isolation {
    // The jail: the machine's own kernel, with all that it has to confine a process.
    Process,
    // A user-space kernel: gVisor's.
    Gvisor,
    // A virtual machine with a kernel of its own.
    #[value(name = "microvm")]
    MicroVm,
}

impl Isolation {
    /// Its name in settings and reports.
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
    /// The one that must be used; if none is named, the strongest that works.
    pub(crate) provider: Option<Isolation>,
    /// The weakest that will do.
    pub(crate) least: Isolation,
    /// How jobs are jailed, if they are processes.
    pub(crate) jail: JailConfig,
    /// How gVisor's sandboxes are made, apart from the jail that they are in.
    pub(crate) gvisor: GvisorConfig,
    /// How virtual machines are made.
    pub(crate) microvm: MicroVmSettings,
}

/// How virtual machines are made. Checked whether or not this binary can make any.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(feature = "microvm"),
    expect(dead_code, reason = "the provider that reads them is not compiled")
)]
pub(crate) struct MicroVmSettings {
    /// The images that `sbx:microvm:build` has made.
    pub(crate) folder: PathBuf,
    /// Whether software (QEMU's `tcg`) executes the machine, and not KVM.
    pub(crate) emulated: bool,
    /// Machines that a service keeps booted.
    pub(crate) ready: usize,
    /// Jobs in machines at the same time.
    pub(crate) most: usize,
    /// Memory of a machine.
    pub(crate) memory_mib: u64,
}

impl SandboxFlags {
    /// The most that is carried from one call to the next.
    pub(super) fn workspace(&self) -> TreeBounds {
        TreeBounds {
            entries: self.sbx_workspace_entries,
            bytes: self.sbx_workspace_mib << 20,
        }
    }

    /// The most that a call of a plan may ask for.
    pub(super) fn most(&self) -> Limits {
        Limits {
            wall: Duration::from_millis(self.sbx_max_wall_ms),
            memory_bytes: self.sbx_max_memory_mib << 20,
            ..Limits::most()
        }
    }

    /// The live sandbox.
    pub(super) fn live(&self, given: &Given) -> Result<SandboxSettings, Refusal> {
        let provider = match self.sbx_provider {
            Provider::Auto => None,
            Provider::Process => Some(Isolation::Process),
            Provider::Gvisor => Some(Isolation::Gvisor),
            Provider::MicroVm => Some(Isolation::MicroVm),
        };
        let least = self.sbx_min_isolation;
        if provider.is_some_and(|provider| provider < least) {
            let least = least.as_str();
            let accepted = format!("what is at least as strong as SBX_MIN_ISOLATION={least}");
            return Err(given.refuse("SBX_PROVIDER", accepted));
        }
        Ok(SandboxSettings {
            provider,
            least,
            jail: JailConfig {
                cgroup: self.sbx_cgroup.clone(),
                read_only: self.sbx_read_only.clone(),
                tracing: self.sbx_allow_ptrace,
                patience: self.sbx_shortage,
                ..JailConfig::default()
            },
            gvisor: GvisorConfig {
                runsc: self.sbx_runsc.clone().into(),
                search: environment::variable("PATH"),
                platform: self.sbx_gvisor_platform,
                ..GvisorConfig::default()
            },
            microvm: MicroVmSettings {
                folder: self.sbx_microvm_dir.clone().into(),
                emulated: self.sbx_microvm_accel,
                ready: self.sbx_microvm_ready,
                most: self.sbx_microvm_max,
                memory_mib: self.sbx_microvm_memory_mib,
            },
        })
    }
}

fn cgroup(text: &str) -> Result<CgroupPolicy, &'static str> {
    match text {
        "auto" => Ok(CgroupPolicy::Auto),
        "require" => Ok(CgroupPolicy::Require),
        path if path.starts_with('/') => Ok(CgroupPolicy::Below(path.into())),
        _ => Err("auto, require, or the absolute path of a delegated cgroup"),
    }
}

fn folders(text: &str) -> Result<Folders, &'static str> {
    let folders = text.split(':').filter(|it| !it.is_empty());
    let folders: Folders = folders.map(PathBuf::from).collect();
    let good = |path: &PathBuf| path.is_absolute() && path.is_dir() && path.parent().is_some();
    if !folders.iter().all(good) {
        return Err("a list of absolute paths of existing folders, with ':' between them,");
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::load;

    #[test]
    fn an_unknown_provider_or_platform_is_refused_with_the_known_ones() {
        assert_eq!(
            load(&["--sbx-provider=docker"]).unwrap_err(),
            "--sbx-provider=docker is not valid: auto, process, gvisor, microvm is accepted"
        );
        assert_eq!(
            load(&["--sbx-gvisor-platform=tcg"]).unwrap_err(),
            "--sbx-gvisor-platform=tcg is not valid: systrap, ptrace, kvm is accepted"
        );
        assert!(load(&["--sbx-gvisor-platform=ptrace"]).is_ok());
        assert!(load(&["--sbx-runsc="]).unwrap_err().contains("--sbx-runsc"));
    }

    #[test]
    fn a_provider_that_is_weaker_than_what_must_be_reached_is_refused() {
        let both = |provider: &str, least: &str| {
            load(&[
                &format!("--sbx-provider={provider}"),
                &format!("--sbx-min-isolation={least}"),
            ])
        };
        for least in ["gvisor", "microvm"] {
            let reason = both("process", least).unwrap_err();
            assert!(
                reason.contains(&format!("SBX_MIN_ISOLATION={least}")),
                "{reason}"
            );
            assert!(both("microvm", least).is_ok());
            assert_eq!(both("gvisor", least).is_ok(), least == "gvisor");
            assert!(both("auto", least).is_ok());
        }
    }
}
