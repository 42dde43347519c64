//! The job's file tree: a small one of its own, with the machine's system folders read-only in it.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    mount, mount_bind, mount_change, move_mount, open_tree, unmount,
};

use super::proc;
use super::sources::{
    DEVICE, DEVICES, READ_ONLY, Sources, TERMINAL, below, fault, folder, io_fault, own_program,
};
use crate::defence::{Defence, on};
use crate::layout::{BUNDLE, BUNDLE_ROOT, ENCLOSURE, GUEST, IN_RUN, JOB, STATE, USER, WRITABLE};
use crate::sys;
use crate::wire::{Enclosed, Fault, Kernel, Proc, Spec};

/// Inodes of the job's file system that the jail itself uses: its root, and the folders in it.
const OWN_INODES: u64 = 1 + WRITABLE.len() as u64 + IN_RUN.len() as u64;
/// Pseudoterminals of one job: the machine's kernel has some thousands for all.
const TERMINALS: u32 = 32;

/// What a tree has only where the machine allows it.
pub(crate) struct Tree {
    /// What its `/proc` shows.
    pub(crate) proc: Proc,
    /// Pseudoterminals.
    pub(crate) terminals: bool,
}

/// Makes the tree and moves into it.
pub(crate) fn enter(spec: &Spec) -> Result<Tree, Fault> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(fault("make every mount private"))?;
    let own = on(Defence::Root);
    let given = Sources::of_the_configuration(spec)?;
    if own {
        let mut sources = Sources::of_the_system()?;
        for device in DEVICES {
            sources.take(Path::new(device), DEVICE, false)?;
        }
        if Path::new(TERMINAL).exists() {
            sources.take(Path::new(TERMINAL), DEVICE, false)?;
        }
        for path in proc::SYS.iter().map(Path::new).filter(|it| it.exists()) {
            sources.take(path, READ_ONLY, true)?;
        }
        let root = new_root()?;
        std::env::set_current_dir(&root).map_err(io_fault("enter the new root"))?;
        sources.place()?;
        etc()?;
    }
    let proc = if own {
        proc::enter(spec)?
    } else {
        // Only in a test: over the machine's, which stays where that cannot be.
        proc::mount_proc("/proc").unwrap_or(Proc::Whole)
    };
    let terminals = own && devices()?;
    disk(spec, own, Kernel::Machine)?;
    if own {
        // After the disk, so that a folder below /run is there.
        given.place()?;
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
    Ok(Tree { proc, terminals })
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
    let sources = Sources::of_the_system()?;
    let given = Sources::of_the_configuration(spec)?;
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
    given.place()?;
    etc()?;
    for name in [DISK, "proc", "dev", "sys"] {
        folder(Path::new(name))?;
    }
    for (name, _) in WRITABLE {
        folder(&below(Path::new(name)))?;
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

/// Makes the folders that a job inside an enclosure may write to.
pub(crate) fn enter_guest(spec: &Spec) -> Result<Tree, Fault> {
    std::env::set_current_dir("/").map_err(io_fault("enter the root"))?;
    disk(spec, true, Kernel::Gvisor)?;
    Ok(Tree {
        proc: if Path::new("/proc/self/status").exists() {
            Proc::Whole
        } else {
            Proc::None
        },
        terminals: Path::new("/dev/ptmx").exists(),
    })
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
        c"size=4m,nr_inodes=4096,mode=755",
    )
    .map_err(fault("mount the root"))?;
    Ok(PathBuf::from(place))
}

/// Makes links to a process's own streams and descriptors, and pseudoterminals of the job's own. Returns false, and the
/// job has no terminals, if this machine allows the jail none.
fn devices() -> Result<bool, Fault> {
    for (name, target) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
        ("dev/ptmx", "pts/ptmx"),
    ] {
        symlink(target, name).map_err(io_fault(name))?;
    }
    folder(Path::new("dev/pts"))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let mut options = "newinstance,ptmxmode=0666,mode=620".to_owned();
    if on(Defence::Terminals) {
        options.push_str(&format!(",max={TERMINALS}"));
    }
    let options = CString::new(options).map_err(Fault::at("mount-namespace"))?;
    match mount("devpts", "dev/pts", "devpts", flags, options.as_c_str()) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS | Errno::NODEV) => Ok(false),
        Err(error) => Err(fault("mount /dev/pts")(error)),
    }
}

/// Writes the files of `/etc` that are the jail's own: the job's user, and that there are no other machines.
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
            "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        ),
    ] {
        fs::write(Path::new("etc").join(name), content).map_err(io_fault(name))?;
    }
    // Names from before there was /run.
    folder(Path::new("var"))?;
    for (name, target) in [("var/run", "/run"), ("var/lock", "/run/lock")] {
        symlink(target, name).map_err(io_fault(name))?;
    }
    Ok(())
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
    let options = CString::new(options).map_err(Fault::at("mount-namespace"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    if !own {
        // Only in a test: over a folder that every machine has, in a mount namespace that nobody else sees.
        mount("tmpfs", "/mnt", "tmpfs", flags, options.as_c_str()).map_err(fault("mount /mnt"))?;
        return Ok(());
    }
    folder(Path::new(DISK))?;
    mount("tmpfs", DISK, "tmpfs", flags, options.as_c_str())
        .map_err(fault("mount the job's folders"))?;
    let make = |name: &Path, mode| {
        let what = name.display().to_string();
        folder(name)?;
        fs::set_permissions(name, fs::Permissions::from_mode(mode)).map_err(io_fault(&what))?;
        if kernel.is_gvisor() {
            // There the init process is another user than the job.
            std::os::unix::fs::chown(name, Some(USER), Some(USER)).map_err(io_fault(&what))?;
        }
        Ok(())
    };
    for (path, mode) in WRITABLE {
        let place = below(Path::new(path));
        let name = Path::new(DISK).join(place.to_string_lossy().replace('/', "-"));
        if path == "/run" {
            // Before it becomes the job's: inside gVisor this process may not make anything there afterwards.
            for inner in IN_RUN {
                make(&name.join(inner), 0o1777)?;
            }
        }
        make(&name, mode)?;
        folder(&place)?;
        mount_bind(&name, &place).map_err(fault(path))?;
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
