//! Where the repository is.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The checkout around the current folder.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
}

impl Repository {
    /// Finds it: the nearest folder upwards that holds the control plane.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let here = std::env::current_dir().context("the current folder is gone")?;
        let root = here
            .ancestors()
            .find(|folder| {
                folder.join("mise.toml").is_file() && folder.join("Cargo.toml").is_file()
            })
            .with_context(|| format!("{} is not in the repository", here.display()))?;
        Ok(Self { root: root.into() })
    }

    /// One that a test made.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Its topmost folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}
