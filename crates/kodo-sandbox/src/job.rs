//! A job: one program to run, and what can be checked of it without running it.

use std::collections::BTreeMap;

use kodo_contract::{ContentHash, Node, NodeKind, Tree, now};

use crate::{Limits, SandboxError, Workspace};

/// The longest name of a file, in bytes: what every file system takes.
const MAX_COMPONENT: usize = 255;
/// The longest path of a file below the working folder, in bytes.
const MAX_PATH: usize = 1024;
/// The most that arguments and environment may take together; Linux itself ends at a quarter of the stack.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// The most that Linux takes in one argument.
const MAX_ARGUMENT: usize = 128 * 1024;

/// One program to run, with everything that it may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The program and its arguments. The program is a path, or a name that is looked for in `PATH`.
    pub argv: Vec<String>,
    /// The tree that the job finds in its folder, and that is handed back as the job leaves it. Without one, only the files
    /// that are new or changed are handed back.
    pub workspace: Option<Workspace>,
    /// Further files in the job's folder, over those of the workspace.
    pub files: Vec<InputFile>,
    /// The environment, beside `PATH`, `HOME`, `TMPDIR` and `LANG`, which a job may override. Nothing of the
    /// service's own environment is there.
    pub env: BTreeMap<String, String>,
    /// The working folder, relative to the job's folder; empty for the job's folder itself.
    pub cwd: String,
    /// Limits on what it may use.
    pub limits: Limits,
    /// Whether it may reach a network beyond its own loopback. No provider of this version grants it.
    pub network: bool,
}

impl JobSpec {
    /// A job without files, with nothing in its environment and the usual limits.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            workspace: None,
            files: Vec::new(),
            env: BTreeMap::new(),
            cwd: String::new(),
            limits: Limits::default(),
            network: false,
        }
    }

    /// The same job with one more file.
    #[must_use]
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push(InputFile::new(name, content));
        self
    }

    /// What the job finds in its folder: its workspace, with its own files over it.
    #[must_use]
    pub fn given(&self) -> Tree {
        let mut tree = self
            .workspace
            .as_ref()
            .map_or_else(Tree::default, |it| it.tree.clone());
        // Never before 1970, and not after 2262.
        let modified = i64::try_from(now().unix_timestamp_nanos()).unwrap_or(i64::MAX);
        for file in &self.files {
            let kind = NodeKind::File {
                sha256: ContentHash::of(&file.content),
                size: file.content.len() as u64,
            };
            let mode = if file.executable { 0o755 } else { 0o644 };
            tree.put(file.name.as_str().into(), Node::new(kind, mode, modified));
        }
        tree
    }

    /// Checks everything that can be checked without a kernel. Every provider calls this first.
    ///
    /// # Errors
    /// [`SandboxError::JobInvalid`], naming the first thing that is wrong.
    pub fn check(&self) -> Result<(), SandboxError> {
        self.first_fault()
            .map_or(Ok(()), |reason| Err(SandboxError::JobInvalid { reason }))
    }

    /// As [`check`](Self::check), for a provider that has no network to give.
    ///
    /// # Errors
    /// [`SandboxError::JobInvalid`], or [`SandboxError::Refused`] if the job asks for a network.
    pub fn check_without_network(&self) -> Result<(), SandboxError> {
        self.check()?;
        if self.network {
            return Err(SandboxError::Refused {
                mechanism: "network".to_owned(),
                reason: "a network was asked for, and this provider gives none".to_owned(),
            });
        }
        Ok(())
    }

    fn first_fault(&self) -> Option<String> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Some("argv must name a program".to_owned());
        }
        let arguments = self.argv.iter().map(|it| it.len() + 1).sum::<usize>();
        let environment = self
            .env
            .iter()
            .map(|(key, value)| key.len() + value.len() + 2)
            .sum::<usize>();
        if arguments + environment > MAX_ARGUMENTS {
            return Some(format!(
                "argv and env together must not exceed {MAX_ARGUMENTS} bytes"
            ));
        }
        for argument in &self.argv {
            if argument.contains('\0') {
                return Some("an argument must not contain U+0000".to_owned());
            }
            if argument.len() >= MAX_ARGUMENT {
                return Some(format!(
                    "an argument must be shorter than {MAX_ARGUMENT} bytes: put longer text in a file"
                ));
            }
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Some(format!(
                    "env: {key:?} is no name of a variable with a value that can be set"
                ));
            }
        }
        if !self.cwd.is_empty()
            && let Some(fault) = path_fault(&self.cwd)
        {
            return Some(format!("cwd {:?} {fault}", self.cwd));
        }
        let mut seen = std::collections::BTreeSet::new();
        for file in &self.files {
            if let Some(fault) = path_fault(&file.name) {
                return Some(format!("the file name {:?} {fault}", file.name));
            }
            if !seen.insert(file.name.as_str()) {
                return Some(format!("the file {:?} is given twice", file.name));
            }
        }
        for name in &seen {
            let under = seen
                .range::<str, _>((std::ops::Bound::Excluded(*name), std::ops::Bound::Unbounded))
                .take_while(|other| other.starts_with(name))
                .any(|other| other.as_bytes().get(name.len()) == Some(&b'/'));
            if under {
                return Some(format!("{name:?} is given as a file and as a folder"));
            }
        }
        self.limits.fault().or_else(|| self.workspace_fault())
    }
}

impl JobSpec {
    /// What the limits have no room for.
    fn workspace_fault(&self) -> Option<String> {
        let tree = &self.workspace.as_ref()?.tree;
        // Whether the content fits shows when it is written: pages of zeros take no room.
        let (entries, limits) = (tree.len() as u64, &self.limits);
        (entries > limits.inodes).then(|| {
            format!(
                "the workspace that the call finds has {entries} entries, and its limits.inodes is {}",
                limits.inodes
            )
        })
    }
}

/// What is wrong with a path that must lie below the job's folder.
fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
        return Some("must have 1 to 1024 bytes and no U+0000");
    }
    if path.starts_with('/') {
        return Some("must be relative to the job's folder");
    }
    path.split('/').find_map(|component| match component {
        "" => Some("must not have empty components"),
        "." | ".." => Some("must not have components `.` and `..`"),
        long if long.len() > MAX_COMPONENT => Some("has a component of more than 255 bytes"),
        _ => None,
    })
}

/// A file that is in a job's folder before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its path, relative to the job's folder.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Whether it can be run.
    pub executable: bool,
    /// Whether it is a secret: it is not handed back as long as it is as it was given.
    pub secret: bool,
}

impl InputFile {
    /// A file that cannot be run and is no secret.
    pub fn new(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.to_owned(),
            content: content.into(),
            executable: false,
            secret: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fault(change: impl FnOnce(&mut JobSpec)) -> String {
        let mut job = JobSpec::new(["true"]);
        change(&mut job);
        match job.check() {
            Err(SandboxError::JobInvalid { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_that_no_kernel_could_run_is_refused_before_there_is_one() {
        assert!(JobSpec::new(["true"]).check().is_ok());
        assert!(fault(|job| job.argv.clear()).contains("argv"));
        assert!(fault(|job| job.argv[0].clear()).contains("argv"));
        assert!(fault(|job| job.argv.push("a\0b".to_owned())).contains("U+0000"));
        assert!(fault(|job| job.argv.push("x".repeat(MAX_ARGUMENT))).contains("in a file"));
        assert!(fault(|job| drop(job.env.insert("A=B".to_owned(), String::new()))).contains("env"));
        assert!(fault(|job| drop(job.env.insert(String::new(), String::new()))).contains("env"));
        assert!(fault(|job| job.limits.wall = Duration::ZERO).contains("limits.wallMs"));
        assert!(fault(|job| job.limits.memory_bytes = u64::MAX).contains("limits.memoryBytes"));
    }

    #[test]
    fn no_name_leads_out_of_the_jobs_folder() {
        for name in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/",
            "a\0",
            &"x".repeat(256),
        ] {
            let as_file = fault(|job| {
                job.files.push(InputFile::new(name, ""));
            });
            assert!(as_file.contains("file name"), "{name:?}: {as_file}");
            if !name.is_empty() {
                assert!(fault(|job| job.cwd = name.to_owned()).contains("cwd"));
            }
        }
    }

    #[test]
    fn one_name_is_one_file() {
        let twice = |first: &str, second: &str| {
            let job = JobSpec::new(["true"]).file(first, "").file(second, "");
            job.check()
        };
        assert!(twice("a", "a").is_err());
        assert!(twice("a", "a/b").is_err());
        assert!(twice("a/b", "a").is_err());
        assert!(twice("a", "a.b").is_ok());
        let between = JobSpec::new(["true"])
            .file("a", "")
            .file("a.b", "")
            .file("a/b", "");
        assert!(between.check().is_err());
    }
}
