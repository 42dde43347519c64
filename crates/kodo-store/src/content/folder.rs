//! The local folder: made when something is written, ours alone, and cleaned of what a crash left half written.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use time::OffsetDateTime;

use super::ArtifactError;

/// How long writing one file may take: what is younger may be under way.
const UNDER_WAY: Duration = Duration::from_secs(3600);

/// A folder of this machine, which may not exist yet.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    opened: OnceLock<Arc<dyn ObjectStore>>,
}

impl Folder {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            opened: OnceLock::new(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the folder if it is missing, readable by its owner alone.
    pub(crate) fn make(&self) -> Result<(), ArtifactError> {
        if self.root.is_dir() {
            return Ok(());
        }
        let made = match self.root.parent() {
            Some(above) => fs::create_dir_all(above),
            None => Ok(()),
        };
        let made = made.and_then(|()| DirBuilder::new().mode(0o700).create(&self.root));
        match made {
            // Another process was quicker.
            Err(_) if self.root.is_dir() => Ok(()),
            made => made.map_err(|error| ArtifactError::from(error).of_write()),
        }
    }

    /// Opens the folder as a store; [`ArtifactError::Missing`] if it does not exist.
    pub(crate) fn open(&self) -> Result<Arc<dyn ObjectStore>, ArtifactError> {
        if let Some(opened) = self.opened.get() {
            return Ok(Arc::clone(opened));
        }
        // A file is written beside its place, flushed, renamed, and the folder flushed: what `put` returned is there.
        let opened = LocalFileSystem::new_with_prefix(&self.root)?.with_fsync(true);
        Ok(Arc::clone(self.opened.get_or_init(|| Arc::new(opened))))
    }

    /// Deletes files that a process that died left half written; with `dry_run` only counts them.
    pub(crate) fn sweep(
        &self,
        below: &Path,
        older_than: OffsetDateTime,
        dry_run: bool,
    ) -> Result<u64, ArtifactError> {
        // A younger file may be in the middle of being written, whatever the caller asks for.
        let older_than = older_than.min(kodo_contract::now() - UNDER_WAY);
        let mut found = 0;
        let mut folders = vec![below.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                // `HASH#NUMBER` is how a file is called while it is written.
                let half_written = entry.file_name().to_string_lossy().contains('#');
                if !half_written || OffsetDateTime::from(entry.metadata()?.modified()?) > older_than
                {
                    continue;
                }
                found += 1;
                if !dry_run {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(found)
    }
}
