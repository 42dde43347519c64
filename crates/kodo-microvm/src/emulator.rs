//! Becoming the emulator: our own program, executed again, gives everything away that it does not need and then
//! executes QEMU.
//!
//! QEMU's own filter of system calls (`-sandbox on`) comes on top of this, once it has set itself up.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{
    Gid, Resource, Rlimit, Signal, Uid, getppid, set_parent_process_death_signal, setrlimit,
};
use serde::{Deserialize, Serialize};

/// The hidden argument that makes a program the emulator.
const ARGUMENT: &str = "vm-emulator";
/// What it ends with where it cannot become the emulator; what went wrong is on its standard error.
const FAILED: i32 = 125;
/// What emulators read beside their own folder: libraries, and what is known of the processor.
const READ: &[&str] = &[
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/proc",
    "/sys/devices/system",
];
/// What they also write to.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/urandom", "/dev/kvm"];
/// Open files of an emulator without disks and networks.
const OPEN_FILES: u64 = 256;

/// What is to be executed, as what.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The process that must be our parent: it may be dead by the time that we can ask to die with it.
    pub(crate) parent: i32,
    /// Users to become, where this is user 0, in order of preference.
    pub(crate) users: Vec<u32>,
    /// Groups to keep then, for the device of KVM.
    pub(crate) groups: Vec<u32>,
    /// The emulator.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Where its libraries are, if not where every program's are.
    pub(crate) libraries: Option<OsString>,
    /// Folders that it reads.
    pub(crate) read: Vec<PathBuf>,
}

/// How a program is started that becomes the emulator.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
}

impl Default for Launcher {
    /// This very program, which calls [`be_the_emulator_if_asked`].
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
        }
    }
}

impl Launcher {
    /// Another program, for tests and benchmarks.
    #[doc(hidden)]
    #[must_use]
    pub fn program(program: PathBuf) -> Self {
        Self { program }
    }

    /// The command that becomes the emulator.
    pub(crate) fn command(&self, start: &Start) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .arg0("kodo-microvm")
            .arg(ARGUMENT)
            .arg(serde_json::to_string(start)?)
            .env_clear()
            .current_dir("/");
        Ok(command)
    }
}

/// Becomes the emulator, if the program was started as such: a program that has a [`MicroVm`](crate::MicroVm)
/// calls this first thing in `main`. Returns otherwise.
pub fn be_the_emulator_if_asked() {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_none_or(|first| first != ARGUMENT) {
        return;
    }
    let error = match arguments.next().map(|it| parse(&it)) {
        Some(Ok(start)) => match become_it(&start) {
            Ok(never) => match never {},
            Err(error) => error,
        },
        _ => "it is how kodo starts a machine, and of no use on a command line".to_owned(),
    };
    let _ = writeln!(std::io::stderr(), "kodo: {ARGUMENT}: {error}");
    std::process::exit(FAILED);
}

fn parse(text: &OsStr) -> Result<Start, String> {
    serde_json::from_str(&text.to_string_lossy()).map_err(|error| error.to_string())
}

fn become_it(start: &Start) -> Result<std::convert::Infallible, String> {
    let at = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    leave_root(start)?;
    rustix::thread::set_no_new_privs(true).map_err(at("no-new-privileges"))?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, OPEN_FILES),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(at("resource-limits"))?;
    }
    restrict(start).map_err(|error| format!("landlock: {error}"))?;
    // Last, since a change of users makes the kernel forget it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at("lifeline"))?;
    if getppid().map_or(0, |it| it.as_raw_nonzero().get()) != start.parent {
        return Err("whoever wanted the machine is gone".to_owned());
    }
    let mut command = Command::new(&start.program);
    command
        .args(&start.arguments)
        .env_clear()
        .stdin(Stdio::inherit());
    if let Some(libraries) = &start.libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let error = command.exec();
    Err(format!("{}: {error}", start.program.display()))
}

/// Stops being the machine's user 0.
fn leave_root(start: &Start) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let at = |error: rustix::io::Errno| format!("leave-root: {error}");
    let groups: Vec<_> = start.groups.iter().map(|it| Gid::from_raw(*it)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(at)?;
    let became = start.users.iter().any(|user| {
        let (uid, gid) = (Uid::from_raw(*user), Gid::from_raw(*user));
        rustix::thread::set_thread_res_gid(gid, gid, gid).is_ok()
            && rustix::thread::set_thread_res_uid(uid, uid, uid).is_ok()
    });
    let root = Uid::ROOT;
    let back = rustix::thread::set_thread_res_uid(root, root, root).is_ok();
    if !became || back || rustix::process::getegid().as_raw() == 0 {
        return Err("leave-root: this process is still the machine's user 0".to_owned());
    }
    Ok(())
}

/// Reads what an emulator reads, writes nothing, opens no connection.
fn restrict(start: &Start) -> Result<(), Box<dyn std::error::Error>> {
    let wanted = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(wanted))?
        .handle_access(AccessNet::from_all(wanted))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let read = AccessFs::from_read(wanted);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let paths = READ
        .iter()
        .map(|path| (Path::new(path), read))
        .chain(start.read.iter().map(|path| (path.as_path(), read)))
        .chain(DEVICES.iter().map(|path| (Path::new(path), device)));
    for (path, access) in paths {
        // Not every machine has every one.
        let Ok(fd) = PathFd::new(path) else { continue };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(wanted)
        };
        rules = rules.add_rule(PathBeneath::new(fd, access))?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel does not enforce it".into()),
        _ => Ok(()),
    }
}
