//! The folder of the private Postgres cluster and of the artifact store.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::given::{Given, Refusal, refusal};

/// Its variable.
const VARIABLE: &str = "KODO_DATA_DIR";

/// Where data is kept that is not in a database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(super) struct DataFlags {
    /// Folder of the private Postgres cluster and of the artifact store; created when it is needed
    #[arg(
        long,
        env = "KODO_DATA_DIR",
        value_name = "DIR",
        default_value = ".data"
    )]
    data_dir: PathBuf,
}

/// The folder, and the setting that named it.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
    name: String,
}

impl DataFolder {
    /// The folder of the settings.
    ///
    /// # Errors
    /// If it cannot be a folder, because something else is there.
    pub(super) fn of(flags: DataFlags, given: &Given) -> Result<Self, Refusal> {
        let folder = Self {
            path: flags.data_dir,
            name: given.name(VARIABLE),
        };
        let there = nearest(&folder.path);
        if !there.is_dir() {
            let reason = format!(
                "{}={} is not valid: a folder is accepted, and {} is none",
                folder.name,
                folder.path.display(),
                there.display()
            );
            return Err(refusal(VARIABLE, reason));
        }
        Ok(folder)
    }

    /// As it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder `name` in it, as an absolute path.
    pub(crate) fn join(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = std::path::absolute(&self.path).with_context(|| self.name.clone())?;
        Ok(path.join(name))
    }

    /// Checks that the folder `name` in it can be written to, or created.
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

/// The part of a path that exists: what does not exist yet will be created in it.
pub(crate) fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute
        .ancestors()
        .find(|it| it.symlink_metadata().is_ok());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// Returns the existing folder in which `path` would be created, and the error, if files cannot be created there.
///
/// It creates a file without a name: permission bits do not say what root or the file system allows.
pub(crate) fn unwritable(path: &Path) -> Option<(PathBuf, std::io::Error)> {
    let there = nearest(path);
    let error = tempfile::tempfile_in(&there).err()?;
    Some((there, error))
}
