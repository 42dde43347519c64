//! The job's file tree: a small one of its own, with the machine's system folders read-only in it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    mount, mount_bind, mount_change, move_mount, open_tree, unmount,
};

use crate::defence::{Defence, on};
use crate::sys;
use crate::wire::{Enclosed, Fault, Kernel, Spec};

/// Where the job's folder is.
pub(crate) const JOB: &str = "/job";
/// Folders with programs, libraries and what they read. Where the machine has a link, the job has the same.
pub(crate) const SYSTEM: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];
/// What dynamic linking and Debian's choices of programs need of the machine's `/etc`.
const ETC: &[&str] = &["/etc/ld.so.cache", "/etc/alternatives"];
/// Devices that hold nothing.
pub(crate) const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
/// Where the jail has folders of its own, so that nothing of the machine can lie there.
const OWN: &[&str] = &[JOB, "/tmp", "/dev", "/proc", "/sys", "/etc"];
/// The user that a job is, as it sees itself.
pub(crate) const USER: u32 = 1000;

/// Files and folders that the tree itself takes of what a job is given.
const OWN_INODES: u64 = 4;

fn fault(what: &str) -> impl Fn(Errno) -> Fault + '_ {
    move |error| Fault::new("mount-namespace", format_args!("{what}: {error}"))
}

fn io_fault(what: &str) -> impl Fn(std::io::Error) -> Fault + '_ {
    move |error| Fault::new("mount-namespace", format_args!("{what}: {error}"))
}

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

/// Where an enclosure's own things are in its tree: the program, its state, what it is told, and the job's tree.
pub(crate) const ENCLOSURE: &str = "/enclosure";
pub(crate) const STATE: &str = "/state";
pub(crate) const BUNDLE: &str = "/bundle";
const ROOT: &str = "rootfs";
/// Our own program in the job's tree inside an enclosure, and the file system behind the job's folders.
pub(crate) const GUEST: &str = "/guest";
const DISK: &str = "disk";

/// Makes the tree of what stands between the jail and the job, and moves into it. In it lies the job's.
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
        .join(ROOT);
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
    let inside = bundle.join(ROOT);
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
    // The whole of it, which is its own processes' alone: what it mounts for its own parts must show no less.
    folder(Path::new("proc"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "proc", "proc", flags, c"").map_err(fault("mount /proc"))?;
    move_in()
}

/// Where our own program is, which runs inside too. By its name, since only that leads to it in another mount namespace:
/// so it must be what this process is, and open to the user that this process has become.
fn own_program() -> Result<PathBuf, Fault> {
    let at = |error: std::io::Error| Fault::new("own-program", error);
    let path = fs::read_link("/proc/self/exe").map_err(at)?;
    let named = |error: std::io::Error| {
        Fault::new("own-program", format_args!("{}: {error}", path.display()))
    };
    let found = fs::File::open(&path)
        .and_then(|it| it.metadata())
        .map_err(named)?;
    let this = fs::metadata("/proc/self/exe").map_err(at)?;
    if (found.dev(), found.ino()) != (this.dev(), this.ino()) {
        let reason = format_args!("{} is another one than runs", path.display()).to_string();
        return Err(Fault::new("own-program", reason));
    }
    Ok(path)
}

/// Makes the folders that a job inside an enclosure may write to.
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

const READ_ONLY: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NODEV.union(MountAttrFlags::MOUNT_ATTR_NOSUID);
const DEVICE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOEXEC.union(MountAttrFlags::MOUNT_ATTR_NOSUID);

/// What the machine gives, taken before anything can lie over it.
struct Sources {
    trees: Vec<(PathBuf, OwnedFd, bool)>,
    links: Vec<(PathBuf, PathBuf)>,
}

impl Sources {
    fn empty() -> Self {
        Self {
            trees: Vec::new(),
            links: Vec::new(),
        }
    }

    /// The system's folders, and those that were asked for.
    fn open(spec: &Spec) -> Result<Self, Fault> {
        let mut sources = Self::empty();
        let wanted = SYSTEM.iter().chain(ETC).map(Path::new);
        for path in wanted {
            let Ok(metadata) = fs::symlink_metadata(path) else {
                continue;
            };
            if metadata.is_symlink() && !ETC.iter().any(|it| Path::new(it) == path) {
                let target = fs::read_link(path).map_err(io_fault("read a system link"))?;
                sources.links.push((path.to_owned(), target));
            } else {
                sources.take(path, READ_ONLY, metadata.is_dir())?;
            }
        }
        for path in &spec.read_only {
            let path = Path::new(path);
            if OWN.iter().any(|own| path.starts_with(own)) || path == Path::new("/") {
                let reason = format!("{} lies where the jail has its own", path.display());
                return Err(Fault::new("read-only-folder", reason));
            }
            let is_dir = fs::metadata(path)
                .map_err(|error| {
                    Fault::new(
                        "read-only-folder",
                        format_args!("{}: {error}", path.display()),
                    )
                })?
                .is_dir();
            sources.take(path, READ_ONLY, is_dir)?;
        }
        Ok(sources)
    }

    fn take(&mut self, path: &Path, flags: MountAttrFlags, is_dir: bool) -> Result<(), Fault> {
        self.take_at(path, path, flags, is_dir)
    }

    /// Takes what is at `path`, to be put at `place`.
    fn take_at(
        &mut self,
        path: &Path,
        place: &Path,
        flags: MountAttrFlags,
        is_dir: bool,
    ) -> Result<(), Fault> {
        let name = path.display().to_string();
        let mut how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if is_dir {
            how |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(CWD, path, how).map_err(fault(&name))?;
        let flags = flags | MountAttrFlags::MOUNT_ATTR_RDONLY;
        sys::set_mount_attributes(tree.as_fd(), flags, is_dir).map_err(io_fault(&name))?;
        self.trees.push((place.to_owned(), tree, is_dir));
        Ok(())
    }

    /// Puts everything at its place below the current folder.
    fn place(self) -> Result<(), Fault> {
        for (path, target) in &self.links {
            symlink(target, below(path)).map_err(io_fault("make a system link"))?;
        }
        for (path, tree, is_dir) in &self.trees {
            let place = below(path);
            let name = path.display().to_string();
            if *is_dir {
                folder(&place)?;
            } else {
                folder(place.parent().unwrap_or(Path::new(".")))?;
                fs::write(&place, "").map_err(io_fault(&name))?;
            }
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(tree, "", CWD, &place, flags).map_err(fault(&name))?;
        }
        Ok(())
    }
}

fn below(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn folder(path: &Path) -> Result<(), Fault> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|error| {
            Fault::new(
                "mount-namespace",
                format_args!("{}: {error}", path.display()),
            )
        })
}

/// A small file system for folders, links and a few lines of `/etc`; nothing in it belongs to the job.
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

/// Who there is, and that there are no other machines.
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

/// A `/proc` of the job's own processes. A container whose own `/proc` is covered in places allows no other
/// one: the job then has none.
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
        // Where the tree is the machine's own, in a test, its /proc is there already.
        Err(_) if !own => Ok(true),
        Err(error) => Err(fault("mount /proc")(error)),
    }
}

/// The folders that the job may write to: one file system, so that one bound holds them all.
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
            // There the first process is another user than the job.
            std::os::unix::fs::chown(name, Some(USER), Some(USER)).map_err(io_fault(name))?;
        }
        folder(Path::new(place))?;
        mount_bind(name, place).map_err(fault(place))?;
    }
    unmount(DISK, UnmountFlags::DETACH).map_err(fault("unmount the whole of the job's disk"))?;
    if kernel.is_gvisor() {
        // Its tree is read-only already; what is left is an empty folder.
        return Ok(());
    }
    fs::remove_dir(DISK).map_err(io_fault(DISK))
}

/// The job's folder: in the product `/job`; in a test that has no tree of its own, elsewhere.
pub(crate) fn job_folder() -> &'static Path {
    Path::new(if on(Defence::Root) { JOB } else { "/mnt" })
}
