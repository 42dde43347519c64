//! What a machine is made of: an emulator, a kernel, a file tree with our first process in it, and a disk with a system.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kodo_sandbox::SandboxError;

/// What a refusal names.
pub(crate) const MECHANISM: &str = "microvm-images";
/// The emulator's name.
const EMULATOR: &str = "qemu-system-x86_64";
/// Where it is where a task has fetched it, below the folder of images.
const FETCHED: &str = "qemu/usr/bin/qemu-system-x86_64";
/// Where Debian has libraries, below that.
const LIBRARIES: [&str; 2] = ["qemu/usr/lib/x86_64-linux-gnu", "qemu/lib/x86_64-linux-gnu"];

/// Where all of it is.
#[derive(Clone, Debug)]
pub struct Images {
    pub(crate) folder: PathBuf,
    pub(crate) emulator: PathBuf,
    pub(crate) libraries: Option<OsString>,
    pub(crate) kernel: PathBuf,
    pub(crate) tree: PathBuf,
    /// The disk that all machines read: programs and libraries for jobs.
    pub(crate) system: PathBuf,
}

impl Images {
    /// Finds it in the folder that `sbx:microvm:build` fills.
    ///
    /// # Errors
    /// [`SandboxError::Refused`], naming what is missing.
    pub fn find(folder: &Path) -> Result<Self, SandboxError> {
        let refused = |reason: String| SandboxError::Refused {
            mechanism: MECHANISM.to_owned(),
            reason,
        };
        let folder = fs::canonicalize(folder)
            .map_err(|error| refused(format!("{}: {error}", folder.display())))?;
        let there = |path: PathBuf| match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => Err(refused(format!("{}: this is no file", path.display()))),
            Err(error) => Err(refused(format!("{}: {error}", path.display()))),
        };
        let (kernel, tree) = (
            there(folder.join("vmlinux"))?,
            there(folder.join("initrd"))?,
        );
        let system = there(folder.join("system.img"))?;
        let fetched = folder.join(FETCHED);
        let (emulator, libraries) = if fetched.is_file() {
            let places: Vec<_> = LIBRARIES.iter().map(|it| folder.join(it)).collect();
            let joined = std::env::join_paths(places)
                .map_err(|error| refused(format!("{}: {error}", folder.display())))?;
            (fetched, Some(joined))
        } else {
            let places = ["/usr/bin", "/usr/local/bin", "/bin"];
            let found = places.iter().map(|it| Path::new(it).join(EMULATOR));
            let found = found.into_iter().find(|path| path.is_file());
            let missing = || {
                refused(format!(
                    "there is no {EMULATOR}, nor {FETCHED} in {}",
                    folder.display()
                ))
            };
            (found.ok_or_else(missing)?, None)
        };
        if rustix::process::geteuid().is_root() {
            // The emulator is not user 0, and reads all of this.
            let closed = folder.ancestors().find(|above| {
                fs::metadata(above).is_ok_and(|metadata| metadata.mode() & 0o001 == 0)
            });
            if let Some(closed) = closed {
                return Err(refused(format!(
                    "{} is closed to others, and the emulator is an ordinary user",
                    closed.display()
                )));
            }
        }
        Ok(Self {
            folder,
            emulator,
            libraries,
            kernel,
            tree,
            system,
        })
    }

    /// Where the emulator's firmware is, where it is not where the emulator looks by itself.
    pub(crate) fn firmware(&self) -> Option<[PathBuf; 2]> {
        self.libraries.is_some().then(|| {
            ["qemu/usr/share/qemu", "qemu/usr/share/seabios"].map(|it| self.folder.join(it))
        })
    }
}
