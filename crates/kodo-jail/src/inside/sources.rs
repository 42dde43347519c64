//! Files and folders of the machine that are mounted read-only into a jail.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::etc;
use crate::defence::{Defence, on};
use crate::layout::JOB;
use crate::sys;
use crate::wire::{Fault, Spec};

/// Folders with programs, libraries and what they read. If the machine has a link there, the job has the same link.
pub(crate) const SYSTEM: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];
/// Devices without any state.
pub(crate) const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
/// The terminal that controls the process which opens it, and none for a process that has none.
pub(crate) const TERMINAL: &str = "/dev/tty";
/// The jail's own folders: nothing of the machine can be mounted there.
const OWN: &[&str] = &[JOB, "/tmp", "/dev", "/proc", "/sys", "/etc"];
/// The same inside an enclosure, where the job's folders are mounted over what is there.
const ENCLOSED: &[&str] = &["/run", "/var/tmp"];

pub(super) fn fault(what: &str) -> impl Fn(Errno) -> Fault + '_ {
    move |error| Fault::because("mount-namespace", what, error)
}

pub(super) fn io_fault(what: &str) -> impl Fn(std::io::Error) -> Fault + '_ {
    move |error| Fault::because("mount-namespace", what, error)
}

pub(super) const READ_ONLY: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NODEV.union(MountAttrFlags::MOUNT_ATTR_NOSUID);
pub(super) const DEVICE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOEXEC.union(MountAttrFlags::MOUNT_ATTR_NOSUID);

/// Whether a link leads to what the job sees under the same name.
fn leads_into_the_system(link: &Path) -> bool {
    fs::canonicalize(link)
        .is_ok_and(|target| SYSTEM.iter().any(|system| target.starts_with(system)))
}

/// Files and folders of the machine, opened before anything is mounted over them.
pub(super) struct Sources {
    trees: Vec<(PathBuf, OwnedFd, bool)>,
    links: Vec<(PathBuf, PathBuf)>,
    /// What is in these folders and no job may read, and whether it is a folder.
    private: Vec<(PathBuf, bool)>,
}

impl Sources {
    pub(super) fn empty() -> Self {
        Self {
            trees: Vec::new(),
            links: Vec::new(),
            private: Vec::new(),
        }
    }

    /// The system's folders, and what a job sees of `/etc`.
    pub(super) fn of_the_system() -> Result<Self, Fault> {
        let mut sources = Self::empty();
        for path in SYSTEM.iter().map(PathBuf::from).chain(etc::shown()) {
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let same_link = !path.starts_with("/etc") || leads_into_the_system(&path);
            if metadata.is_symlink() && same_link {
                let target = fs::read_link(&path).map_err(io_fault("read a system link"))?;
                sources.links.push((path, target));
            } else {
                let is_dir = fs::metadata(&path).is_ok_and(|it| it.is_dir());
                sources.take(&path, READ_ONLY, is_dir)?;
                if is_dir && path.starts_with("/etc") && on(Defence::Etc) {
                    let name = path.display().to_string();
                    let private = etc::private(&path).map_err(io_fault(&name))?;
                    sources.private.extend(private);
                }
            }
        }
        Ok(sources)
    }

    /// The folders of the configuration. Inside an enclosure, none of them can be in a folder that the job can write to.
    pub(super) fn of_the_configuration(spec: &Spec) -> Result<Self, Fault> {
        let mut sources = Self::empty();
        let enclosed = spec.enclosed.is_some();
        let own = OWN.iter().chain(ENCLOSED.iter().filter(|_| enclosed));
        for path in &spec.read_only {
            let path = Path::new(path);
            if own.clone().any(|own| path.starts_with(own)) || path == Path::new("/") {
                let reason = format!("{} lies where the jail has its own", path.display());
                return Err(Fault::new("read-only-folder", reason));
            }
            let is_dir = fs::metadata(path)
                .map_err(|error| Fault::because("read-only-folder", path.display(), error))?
                .is_dir();
            sources.take(path, READ_ONLY, is_dir)?;
        }
        Ok(sources)
    }

    pub(super) fn take(
        &mut self,
        path: &Path,
        flags: MountAttrFlags,
        is_dir: bool,
    ) -> Result<(), Fault> {
        self.take_at(path, path, flags, is_dir)
    }

    /// Opens what is at `path`, to be mounted at `place`.
    pub(super) fn take_at(
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

    /// Mounts everything at its place below the current folder.
    pub(super) fn place(self) -> Result<(), Fault> {
        for (path, target) in &self.links {
            let place = below(path);
            folder(place.parent().unwrap_or(Path::new(".")))?;
            symlink(target, place).map_err(io_fault("make a system link"))?;
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
        cover(&self.private)
    }
}

/// Mounts an empty file or folder that nobody may read over each of these, below the current folder.
fn cover(private: &[(PathBuf, bool)]) -> Result<(), Fault> {
    if private.is_empty() {
        return Ok(());
    }
    let (file, directory) = (Path::new("cover"), Path::new("cover.d"));
    fs::write(file, "").map_err(io_fault("cover"))?;
    folder(directory)?;
    for it in [file, directory] {
        fs::set_permissions(it, fs::Permissions::from_mode(0o000)).map_err(io_fault("cover"))?;
    }
    for (path, is_dir) in private {
        let name = path.display().to_string();
        let by = if *is_dir { directory } else { file };
        let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, by, how).map_err(fault(&name))?;
        let flags = READ_ONLY | MountAttrFlags::MOUNT_ATTR_RDONLY;
        sys::set_mount_attributes(tree.as_fd(), flags, false).map_err(io_fault(&name))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        match move_mount(&tree, "", CWD, below(path), flags) {
            // It was removed meanwhile.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(fault(&name)(error)),
        }
    }
    fs::remove_file(file).map_err(io_fault("cover"))?;
    fs::remove_dir(directory).map_err(io_fault("cover"))
}

pub(super) fn below(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

pub(super) fn folder(path: &Path) -> Result<(), Fault> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|error| Fault::because("mount-namespace", path.display(), error))
}

/// The path of our own program, which also runs inside the enclosure. Only a path can be opened in another mount
/// namespace, so the file must be the one that this process runs, and readable by the user that this process is.
pub(super) fn own_program() -> Result<PathBuf, Fault> {
    let at = Fault::at("own-program");
    let path = fs::read_link("/proc/self/exe").map_err(&at)?;
    let named = |error: std::io::Error| Fault::because("own-program", path.display(), error);
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
