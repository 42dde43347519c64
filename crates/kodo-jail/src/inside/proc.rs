//! The job's `/proc` and `/sys`: its own processes, and what a job is told of the machine.
//!
//! `/proc` is one of the job's own pid namespace. Of its other entries, those that a job is told of are mounted in their
//! places, and then it is narrowed to processes (`subset=pid`). From then on the kernel finds no entry that is not in use
//! already, so what is not mounted does not exist, also what a module of the kernel registers while the job runs.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_remount, move_mount, open_tree, unmount,
};

use super::facts::{self, Facts, UUID};
use super::sources::{fault, folder, io_fault};
use crate::defence::{Defence, on};
use crate::sys;
use crate::wire::{Fault, Proc, Spec};

/// Entries of `/proc` that are the kernel's own: what every process is told by a system call anyway, and what is of the job's
/// own namespaces.
const LIVE: &[&str] = &[
    "loadavg",
    "uptime",
    "version",
    "cgroups",
    "sysvipc/msg",
    "sysvipc/sem",
    "sysvipc/shm",
];
/// Links of `/proc` to what is of a process. Those to processes are there in any case.
const LINKS: &[&str] = &["mounts", "net"];
/// Where what covers is made, below the current folder.
const FACTS: &str = "facts";
/// Folders of the machine's `/sys` that a job sees: which processors there are, and how memory comes in large pages.
pub(super) const SYS: &[&str] = &[
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];
/// The controllers of version 1 that a job is told of, by the names of their mounts: a JVM looks for all of the first four.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "pids"];
/// Those of them in which the job has a group of its own. In all others it is in the service's.
const GROUPED: [&str; 2] = ["memory", "pids"];

/// The option of a `/proc` of processes alone.
const PROCESSES: &CStr = c"hidepid=2,subset=pid";

const FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Mounts both below the current folder.
pub(super) fn enter(spec: &Spec) -> Result<Proc, Fault> {
    folder(Path::new("proc"))?;
    folder(Path::new("sys/fs/cgroup"))?;
    folder(Path::new("sys/devices/system/node"))?;
    let proc = mount_proc("proc")?;
    let facts = Facts::of(&spec.limits);
    folder(Path::new(FACTS))?;
    mount(
        "tmpfs",
        FACTS,
        "tmpfs",
        FLAGS,
        c"size=1m,nr_inodes=512,mode=755",
    )
    .map_err(fault("mount what the job is told"))?;
    write(&facts, proc, spec)?;
    read_only(FACTS)?;
    if proc == Proc::Whole && on(Defence::Proc) {
        narrow()?;
    }
    bind("node", "sys/devices/system/node")?;
    if spec.watch || !own_cgroups() {
        // For programs that look for the version of cgroups in the table of mounts.
        let _ = mount("cgroup2", "sys/fs/cgroup", "cgroup2", FLAGS, c"");
        bind("cgroup", "sys/fs/cgroup")?;
    }
    unmount(FACTS, UnmountFlags::DETACH).map_err(fault("unmount what the job is told"))?;
    fs::remove_dir(FACTS).map_err(io_fault(FACTS))?;
    Ok(proc)
}

/// Mounts a `/proc` of this pid namespace. A container whose own is partly covered is allowed one of processes alone, or
/// none at all.
pub(super) fn mount_proc(place: &str) -> Result<Proc, Fault> {
    let whole = if on(Defence::Proc) { c"hidepid=2" } else { c"" };
    for (options, kind) in [(whole, Proc::Whole), (PROCESSES, Proc::Processes)] {
        match mount("proc", place, "proc", FLAGS, options) {
            Ok(()) => return Ok(kind),
            Err(Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(fault("mount /proc")(error)),
        }
    }
    Ok(Proc::None)
}

/// Writes what the job is told.
fn write(facts: &Facts, proc: Proc, spec: &Spec) -> Result<(), Fault> {
    let mut files = Vec::new();
    let mut add = |below: &str, more: Vec<(&str, String)>| {
        let named = more.into_iter();
        files.extend(named.map(|(name, content)| (format!("{below}/{name}"), content)));
    };
    add("node", facts.node());
    add("cgroup", facts.cgroup());
    add("ungrouped", facts.processors());
    if proc == Proc::Whole {
        let cpuinfo = fs::read_to_string("proc/cpuinfo").map_err(io_fault("cpuinfo"))?;
        add("proc", facts.proc(&cpuinfo));
        if spec.watch {
            add("proc", vec![("cgroups", facts.controllers())]);
        }
        add("sys", facts::settings(Path::new("proc")));
        add("sys", vec![(UUID, String::new())]);
    }
    for (name, content) in files {
        let place = Path::new(FACTS).join(&name);
        if let Some(above) = place.parent() {
            folder(above)?;
        }
        fs::write(&place, content).map_err(io_fault(&name))?;
    }
    Ok(())
}

/// Mounts what the job is told into `/proc`, and then leaves nothing else there but processes.
fn narrow() -> Result<(), Fault> {
    for name in LIVE {
        let place = Path::new("proc").join(name);
        match live(&place) {
            // The kernel was built without it.
            Ok(tree) => put(&tree, &place)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(fault(name)(error)),
        }
    }
    let uuid = Path::new("proc/sys").join(UUID);
    let number = live(&uuid).map_err(fault(UUID))?;
    bind("sys", "proc/sys")?;
    put(&number, &uuid)?;
    let told = Path::new(FACTS).join("proc");
    for entry in fs::read_dir(told).map_err(io_fault("list what the job is told"))? {
        let name = entry.map_err(io_fault("list what the job is told"))?;
        let place = format!("proc/{}", name.file_name().to_string_lossy());
        if Path::new(&place).exists() {
            bind(&place, &place)?;
        }
    }
    for name in LINKS {
        // Nothing can be mounted over a link. It stays in use as long as this process, the jail's init, has it open.
        let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = open(Path::new("proc").join(name), how, Mode::empty()).map_err(fault(name))?;
        std::mem::forget(link);
    }
    mount_remount("proc", FLAGS, PROCESSES).map_err(fault("narrow /proc to processes"))
}

/// An entry of the kernel's own, to be mounted where a job reads it.
fn live(place: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, place, how)?;
    match sys::set_mount_attributes(tree.as_fd(), READ_ONLY, false) {
        Ok(()) => Ok(tree),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn put(tree: &OwnedFd, place: &Path) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let name = place.display().to_string();
    move_mount(tree, "", CWD, place, flags).map_err(fault(&name))
}

/// Mounts what the job is told over a place.
fn bind(name: &str, place: &str) -> Result<(), Fault> {
    mount_bind(Path::new(FACTS).join(name), place).map_err(fault(place))
}

fn read_only(place: &str) -> Result<(), Fault> {
    let tree = open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(fault(place))?;
    sys::set_mount_attributes(tree.as_fd(), READ_ONLY, false).map_err(io_fault(place))
}

/// Mounts the cgroups that the job is in, as the roots of all, and covers those of version 1 that are not its own: below
/// them are groups of others. Returns false if this machine does not allow the jail all of it.
fn own_cgroups() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let version_1: Vec<_> = groups
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|it| it.split(',').any(|it| CONTROLLERS.contains(&it)))
        .collect();
    let mounted = |place: &str, kind: &str, options: &str| {
        let Ok(options) = std::ffi::CString::new(options) else {
            return false;
        };
        folder(Path::new(place)).is_ok()
            && mount(kind, place, kind, FLAGS, options.as_c_str()).is_ok()
            && read_only(place).is_ok()
    };
    if !version_1
        .iter()
        .any(|it| it.split(',').any(|it| it == "memory"))
    {
        return mounted("sys/fs/cgroup", "cgroup2", "");
    }
    version_1.iter().all(|controllers| {
        let place = format!("sys/fs/cgroup/{controllers}");
        let grouped = controllers.split(',').any(|it| GROUPED.contains(&it));
        mounted(&place, "cgroup", controllers)
            && (grouped || !on(Defence::Proc) || bind("ungrouped", &place).is_ok())
    })
}
