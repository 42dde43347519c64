//! The job's file tree: a small one of its own, with the machine's system folders read-only in it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    mount, mount_bind, mount_change, move_mount, open_tree, unmount,
};

use super::sources::{
    DEVICE, DEVICES, READ_ONLY, Sources, below, fault, folder, io_fault, own_program,
};
use crate::defence::{Defence, on};
use crate::layout::{BUNDLE, BUNDLE_ROOT, ENCLOSURE, GUEST, JOB, STATE, USER};
use crate::sys;
use crate::wire::{Enclosed, Fault, Kernel, Spec};

/// Inodes of the job's file system that the jail itself uses.
const OWN_INODES: u64 = 4;

/// Makes the tree and moves into it. Returns whether it has a `/proc`.
pub(crate) fn enter(spec: &Spec) -> Result<bool, Fault> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(fault("make every mount private"))?;
    let own = on(Defence::Root);
    if own {
        let mut sources = Sources::open(spec)?;
        for device in DEVICES {
            sources.take(Path::new(device), DEVICE, false)?;
        }
        let root = new_root()?;
        std::env::set_current_dir(&root).map_err(io_fault("enter the new root"))?;
        sources.place()?;
        etc()?;
    }
    let proc = proc_folder(own)?;
    disk(spec, own, Kernel::Machine)?;
    if own {
        move_in()?;
        let root = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .map_err(fault("open the root"))?;
        sys::set_mount_attributes(
            root.as_fd(),
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV,
            false,
        )
        .map_err(io_fault("make the root read-only"))?;
    }
    Ok(proc)
}

/// The file system behind the job's folders, in the job's tree.
const DISK: &str = "disk";

/// Makes the file tree of an enclosure, which contains the job's, and moves into it.
pub(crate) fn enter_enclosed(spec: &Spec, enclosed: &Enclosed) -> Result<(), Fault> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(fault("make every mount private"))?;
    let sources = Sources::open(spec)?;
    let mut own = Sources::empty();
    own.take_at(&enclosed.program, Path::new(ENCLOSURE), READ_ONLY, false)?;
    let guest = Path::new("/")
        .join(BUNDLE.trim_start_matches('/'))
        .join(BUNDLE_ROOT);
    let guest = guest.join(GUEST.trim_start_matches('/'));
    own.take_at(&own_program()?, &guest, READ_ONLY, false)?;
    for device in DEVICES
        .iter()
        .map(Path::new)
        .chain(enclosed.devices.iter().map(PathBuf::as_path))
    {
        own.take(device, DEVICE, false)?;
    }
    let root = new_root()?;
    std::env::set_current_dir(&root).map_err(io_fault("enter the new root"))?;
    for place in [STATE, "/tmp", BUNDLE] {
        folder(&below(Path::new(place)))?;
    }
    let bundle = below(Path::new(BUNDLE));
    fs::write(bundle.join("config.json"), &enclosed.bundle).map_err(io_fault("config.json"))?;
    let inside = bundle.join(BUNDLE_ROOT);
    folder(&inside)?;
    own.place()?;
    std::env::set_current_dir(&inside).map_err(io_fault("enter the job's tree"))?;
    sources.place()?;
    etc()?;
    for name in [DISK, "job", "tmp", "proc", "dev", "sys"] {
        folder(Path::new(name))?;
    }
    let all = open_tree(
        CWD,
        ".",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )
    .map_err(fault("open the job's tree"))?;
    sys::set_mount_attributes(
        all.as_fd(),
        READ_ONLY | MountAttrFlags::MOUNT_ATTR_RDONLY,
        true,
    )
    .map_err(io_fault("make the job's tree read-only"))?;
    std::env::set_current_dir("../..").map_err(io_fault("leave the job's tree"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&all, "", CWD, &inside, flags).map_err(fault("the job's tree"))?;
    // A complete /proc, of this pid namespace: the kernel allows the enclosure no new one that shows more than this one.
    folder(Path::new("proc"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", flags, c"").map_err(fault("mount /proc"))?;
    move_in()
}

/// Makes the folders that a job inside an enclosure may write to. Returns whether it has a `/proc`.
pub(crate) fn enter_guest(spec: &Spec) -> Result<bool, Fault> {
    std::env::set_current_dir("/").map_err(io_fault("enter the root"))?;
    disk(spec, true, Kernel::Gvisor)?;
    Ok(Path::new("/proc/self/status").exists())
}

/// Makes the current folder the root.
fn move_in() -> Result<(), Fault> {
    rustix::process::pivot_root(".", ".").map_err(fault("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(fault("unmount the machine's root"))?;
    std::env::set_current_dir("/").map_err(io_fault("enter the new root"))
}

/// Mounts a small file system for folders, links and a few files of `/etc`; nothing in it belongs to the job.
fn new_root() -> Result<PathBuf, Fault> {
    let place = ["/tmp", "/mnt", "/usr"]
        .into_iter()
        .find(|path| Path::new(path).is_dir())
        .ok_or_else(|| Fault::new("mount-namespace", "the machine has neither /tmp nor /usr"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(
        "tmpfs",
        place,
        "tmpfs",
        flags,
        c"size=1m,nr_inodes=512,mode=755",
    )
    .map_err(fault("mount the root"))?;
    Ok(PathBuf::from(place))
}

/// Writes the files of `/etc`: the job's user, and that there are no other machines.
fn etc() -> Result<(), Fault> {
    folder(Path::new("etc"))?;
    let passwd = format!(
        "job:x:{USER}:{USER}:job:{JOB}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    );
    let group = format!("job:x:{USER}:\nnogroup:x:65534:\n");
    for (name, content) in [
        ("passwd", passwd.as_str()),
        ("group", &group),
        ("hosts", "127.0.0.1 localhost jail\n::1 localhost\n"),
        ("hostname", "jail\n"),
        ("resolv.conf", ""),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n",
        ),
    ] {
        fs::write(Path::new("etc").join(name), content).map_err(io_fault(name))?;
    }
    Ok(())
}

/// Mounts a `/proc` of the job's own processes. Returns false, and the job has none, in a container whose own `/proc` is
/// partly covered: the kernel allows no other one there.
fn proc_folder(own: bool) -> Result<bool, Fault> {
    let place = if own { "proc" } else { "/proc" };
    if own {
        folder(Path::new(place))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = if on(Defence::Proc) {
        c"hidepid=2,subset=pid"
    } else {
        c""
    };
    match mount("proc", place, "proc", flags, options) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS) if own => Ok(false),
        // In a test, with the machine's own file tree, there is a /proc already.
        Err(_) if !own => Ok(true),
        Err(error) => Err(fault("mount /proc")(error)),
    }
}

/// Mounts the folders that the job may write to: one file system, so that one limit counts for all of them.
fn disk(spec: &Spec, own: bool, kernel: Kernel) -> Result<(), Fault> {
    let limits = &spec.limits;
    let mut options = "mode=755".to_owned();
    if on(Defence::DiskSize) {
        options.push_str(&format!(",size={}", limits.disk_bytes));
    }
    if on(Defence::DiskInodes) && !kernel.is_gvisor() {
        options.push_str(&format!(",nr_inodes={}", limits.inodes + OWN_INODES));
    }
    let options =
        std::ffi::CString::new(options).map_err(|error| Fault::new("mount-namespace", error))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if !own {
        // Only in a test: over a folder that every machine has, in a mount namespace that nobody else sees.
        mount("tmpfs", "/mnt", "tmpfs", flags, options.as_c_str()).map_err(fault("mount /mnt"))?;
        return Ok(());
    }
    folder(Path::new(DISK))?;
    mount("tmpfs", DISK, "tmpfs", flags, options.as_c_str())
        .map_err(fault("mount the job's folders"))?;
    for (name, place, mode) in [
        ("disk/job", "job", 0o755),
        ("disk/tmp", "tmp", 0o1777),
        ("disk/shm", "dev/shm", 0o1777),
    ] {
        folder(Path::new(name))?;
        fs::set_permissions(name, fs::Permissions::from_mode(mode)).map_err(io_fault(name))?;
        if kernel.is_gvisor() {
            // There the init process is another user than the job.
            std::os::unix::fs::chown(name, Some(USER), Some(USER)).map_err(io_fault(name))?;
        }
        folder(Path::new(place))?;
        mount_bind(name, place).map_err(fault(place))?;
    }
    unmount(DISK, UnmountFlags::DETACH).map_err(fault("unmount the whole of the job's disk"))?;
    if kernel.is_gvisor() {
        // The tree is read-only already; an empty folder stays.
        return Ok(());
    }
    fs::remove_dir(DISK).map_err(io_fault(DISK))
}

/// The job's folder: `/job`; in a test without a file tree of its own, `/mnt`.
pub(crate) fn job_folder() -> &'static Path {
    Path::new(if on(Defence::Root) { JOB } else { "/mnt" })
}
