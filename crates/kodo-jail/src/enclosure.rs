//! A program between the jail and the job that brings a kernel of its own for it: gVisor's `runsc`.
//!
//! ```text
//! service ── helper ── first process of the jail ── runsc ── gVisor's kernel ── our first process in it ── the job
//! ```
//!
//! All of it is in the jail's namespaces, as a user of the machine that has no rights: so it has no network, sees no
//! process and no folder of the machine but those that a job may read, writes to memory alone, and ends with the
//! jail's first process, whoever of them is still there. What the jail does to a job's program itself (Landlock, the
//! list of system calls) is not done to `runsc`, which puts up walls of its own with calls that a job must not make.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Resource;

use crate::sys::{self, Fork, Strings};
use crate::tree::{self, BUNDLE, ENCLOSURE, GUEST, STATE};
use crate::wire::{Enclosed, Fault, Spec};
use crate::{guest, helper, program};

/// What a refusal names where the program cannot even be executed.
const FAILED: &str = "enclosure";

/// What is put between the jail and the job.
#[derive(Clone, Debug)]
pub(crate) struct Enclosure {
    /// The provider's name.
    pub(crate) provider: &'static str,
    /// What a refusal names where it does not come up.
    pub(crate) mechanism: &'static str,
    /// The program: one that needs nothing but itself.
    pub(crate) program: PathBuf,
    /// Its arguments, for which [`Enclosure::state`] and [`Enclosure::bundle`] are there.
    pub(crate) arguments: Vec<String>,
    /// The file `config.json` of its bundle, whose folder `rootfs` is the job's tree; [`Enclosure::guest`] in it is what
    /// is to be run.
    pub(crate) config: String,
    /// Devices of the machine that it uses.
    pub(crate) devices: Vec<PathBuf>,
    /// Groups of the machine that may use those, kept where the service is user 0.
    pub(crate) groups: Vec<u32>,
    /// Memory that it takes itself, on top of a job's.
    pub(crate) own_memory: u64,
    /// How long it may take to come up.
    pub(crate) start: Duration,
    /// What holds a job in it, in words.
    pub(crate) enforced: BTreeMap<&'static str, String>,
}

impl Enclosure {
    /// Where its state is, in its own file tree.
    pub(crate) fn state() -> &'static str {
        STATE
    }

    /// Where its bundle is, in its own file tree.
    pub(crate) fn bundle() -> &'static str {
        BUNDLE
    }

    /// What is to be run inside, in the job's file tree: our own first process, as user 0 of the sandbox.
    pub(crate) fn guest() -> [&'static str; 2] {
        [GUEST, guest::ARGUMENT]
    }

    /// What held a job in it, in words.
    pub(crate) fn enforced(&self, group: Option<&'static str>) -> BTreeMap<&'static str, String> {
        let mut enforced = self.enforced.clone();
        let (memory, processes) = match group {
            Some(group) => (
                format!("watched every 10 ms in the sandbox; {group} around all of it"),
                format!("resource limit in the sandbox; {group} around all of it"),
            ),
            None => (
                "watched every 10 ms in the sandbox; no cgroup around it".to_owned(),
                "resource limit in the sandbox; no cgroup around it".to_owned(),
            ),
        };
        enforced.insert("memory", memory);
        enforced.insert("processes", processes);
        enforced
    }

    /// Processes and threads of the machine for so many of a job's, as a bound around what bounds the job's own. By
    /// ptrace, gVisor has one for each pair of an address space and a thread of its kernel's that has seen it.
    pub(crate) fn processes(processes: u64) -> u64 {
        processes.saturating_mul(64).saturating_add(512).min(30_000)
    }

    pub(crate) fn told(&self, processes: u64) -> Enclosed {
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

/// As the first process of the jail: starts the program in a tree of its own, and ends when it does.
pub(crate) fn run(control: &UnixStream, spec: &Spec, enclosed: &Enclosed) -> Result<i32, Fault> {
    helper::lifeline()?;
    tree::enter_enclosed(spec, enclosed)?;
    let text = |text: &str| CString::new(text).map_err(Fault::at("specification"));
    let program = text(ENCLOSURE)?;
    let name = [program.clone()].into_iter().map(Ok);
    let arguments = enclosed.arguments.iter().map(|it| text(it));
    let arguments = Strings::new(name.chain(arguments).collect::<Result<_, Fault>>()?);
    let environment = Strings::new(Vec::new());
    match sys::fork().map_err(Fault::at("fork"))? {
        Fork::Child => {
            let fault = match bind(control, enclosed) {
                Err(fault) => fault,
                Ok(()) => {
                    let error = sys::execute(&program, &arguments, &environment);
                    let what = "it cannot be executed where there are no libraries for it";
                    Fault::new(FAILED, format_args!("{what}: {error}"))
                }
            };
            // The conversation is standard input by now, or still where it was: one socket in either case.
            if let Ok(mut control) = control.try_clone() {
                helper::report(&mut control, &fault);
            }
            sys::exit_now(1)
        }
        Fork::Parent(child) => Ok(helper::wait_for(child)),
    }
}

fn bind(control: &UnixStream, enclosed: &Enclosed) -> Result<(), Fault> {
    // Should memory run out, this goes and not what is outside of it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    program::bound(Resource::Core, 0)?;
    program::bound(Resource::Nproc, enclosed.processes)?;
    rustix::thread::set_no_new_privs(true).map_err(Fault::at("no-new-privileges"))?;
    sys::close_from(3, true).map_err(Fault::at("descriptors"))?;
    sys::duplicate_onto(control.as_fd(), 0, true).map_err(Fault::at("descriptors"))?;
    sys::reset_signals();
    Ok(())
}
