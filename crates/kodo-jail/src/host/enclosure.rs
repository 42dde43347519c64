//! A program between the jail and the job that brings a kernel of its own for it: gVisor's `runsc`.
//!
//! ```text
//! service ── helper ── init of the jail ── runsc ── gVisor's kernel ── our init inside it ── the job
//! ```
//!
//! All of it is in the jail's namespaces, as a user of the machine that has no rights: so it has no network, sees no
//! process and no folder of the machine except those that a job may read, writes to memory alone, and ends with the
//! jail's init. What the jail does to a job's program itself (Landlock, the list of system calls) is not done to `runsc`,
//! which confines the job by calls that a job must not make.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Enclosed;

/// What is put between the jail and the job.
#[derive(Clone, Debug)]
pub(crate) struct Enclosure {
    /// The provider's name.
    pub(crate) provider: &'static str,
    /// What a refusal names if it does not come up.
    pub(crate) mechanism: &'static str,
    /// The program: a static binary, since no library is there for it.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// The file `config.json` of its bundle, whose folder `rootfs` is the job's tree.
    pub(crate) config: String,
    /// Devices of the machine that it uses.
    pub(crate) devices: Vec<PathBuf>,
    /// Groups of the machine that may use those devices, kept if the service is user 0.
    pub(crate) groups: Vec<u32>,
    /// Memory that it takes itself, in bytes, on top of a job's.
    pub(crate) own_memory: u64,
    /// How long it may take to come up.
    pub(crate) start: Duration,
    /// What confines a job in it, in words.
    pub(crate) enforced: BTreeMap<&'static str, String>,
}

impl Enclosure {
    /// What confined a job in it, in words.
    pub(crate) fn enforced(&self, cgroup: Option<&'static str>) -> BTreeMap<&'static str, String> {
        let around = cgroup.map_or_else(
            || "no cgroup around it".to_owned(),
            |cgroup| format!("{cgroup} around all of it"),
        );
        let mut enforced = self.enforced.clone();
        enforced.insert(
            "memory",
            format!("watched every 10 ms in the sandbox; {around}"),
        );
        enforced.insert(
            "processes",
            format!("resource limit in the sandbox; {around}"),
        );
        enforced
    }

    /// Processes and threads of the machine for so many of a job's, as a limit around the one that limits the job's own.
    /// By ptrace, gVisor has one for each pair of an address space and a thread of its kernel's that has seen it.
    pub(crate) fn processes(processes: u64) -> u64 {
        processes.saturating_mul(64).saturating_add(512).min(30_000)
    }

    /// What the helper needs to know of it.
    pub(crate) fn message(&self, processes: u64) -> Enclosed {
        Enclosed {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            bundle: self.config.clone(),
            devices: self.devices.clone(),
            groups: self.groups.clone(),
            processes: Self::processes(processes),
        }
    }
}
