//! The folder of the private Postgres cluster and of the artifact store.
//!
//! Its flag is `--data-dir`, of the commands that use it, and not one of the table.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Flags, Raw};

/// Its variable.
pub(super) const VARIABLE: &str = "KODO_DATA_DIR";

/// The folder, and who named it.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
    name: &'static str,
}

impl DataFolder {
    /// By the environment, or the default.
    ///
    /// # Errors
    /// Where it cannot be a folder.
    pub(super) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let raw = match flags.ignored.contains(&VARIABLE) {
            true => Raw::unset("data-dir", VARIABLE, ".data"),
            false => Raw::new("data-dir", VARIABLE, None, ".data"),
        };
        let folder = Self {
            path: PathBuf::from(raw.value),
            name: VARIABLE,
        };
        folder.check()?;
        Ok(folder)
    }

    /// By a flag, if there is one; else this one.
    ///
    /// # Errors
    /// Where it cannot be a folder.
    pub(crate) fn or_by_flag(&self, flag: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = flag else {
            return Ok(self.clone());
        };
        let folder = Self {
            path,
            name: "--data-dir",
        };
        folder.check()?;
        Ok(folder)
    }

    /// As it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder `name` in it.
    ///
    /// # Errors
    /// Where the current folder is gone.
    pub(crate) fn join(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = std::path::absolute(&self.path).context(self.name)?;
        Ok(path.join(name))
    }

    /// What stands where it is to be made, if that is no folder.
    fn check(&self) -> anyhow::Result<()> {
        let there = nearest(&self.path);
        if there.is_dir() {
            return Ok(());
        }
        bail!(
            "{}={} is not valid: a folder is accepted, and {} is none",
            self.name,
            self.path.display(),
            there.display()
        )
    }

    /// Whether the folder `name` in it can be written to, or made.
    ///
    /// # Errors
    /// One line that names the setting.
    pub(crate) fn check_writable(&self, name: &str, what_for: &str) -> anyhow::Result<()> {
        let Some((there, error)) = unwritable(&self.path.join(name)) else {
            return Ok(());
        };
        bail!(
            "{}={} is not valid: a folder that can be written to is accepted, and {} cannot be ({error}); {what_for}",
            self.name,
            self.path.display(),
            there.display()
        )
    }
}

/// What of a path is there: what does not exist yet will be made in what does.
pub(crate) fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute
        .ancestors()
        .find(|it| it.symlink_metadata().is_ok());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// The folder that would have to be written to for there to be this one, if it cannot be, and why.
///
/// Tried, with a file that has no name: what its mode says is not what root, or a file system, makes of it.
pub(crate) fn unwritable(path: &Path) -> Option<(PathBuf, std::io::Error)> {
    let there = nearest(path);
    let error = tempfile::tempfile_in(&there).err()?;
    Some((there, error))
}
