//! Where the repository is and which files are in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

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

    /// Every file that is tracked or would be by `git add .`, relative to the root. The second kind, because a rule
    /// that begins to hold with the commit is found broken one commit too late.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let listed = self.output(Command::new("git").args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let mut files: Vec<PathBuf> = listed
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            // Deleted, and not yet committed so.
            .filter(|file| self.root.join(file).is_file())
            .collect();
        files.sort();
        files.dedup();
        ensure!(!files.is_empty(), "git lists no files here");
        Ok(files)
    }

    /// Runs a command at the root and returns what it writes to standard output.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command
            .current_dir(&self.root)
            .output()
            .with_context(|| format!("{name} does not start"))?;
        ensure!(
            output.status.success(),
            "{name} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).with_context(|| format!("{name} writes no UTF-8"))
    }
}
