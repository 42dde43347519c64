//! The result of a job.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kodo_contract::Tree;
use serde::Serialize;

use crate::{Captured, Limits};

/// The result of one job that was run.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// The sandbox that ran it.
    pub provider: &'static str,
    /// How it ended.
    pub ended: Ended,
    /// What it printed on standard output.
    pub stdout: Captured,
    /// What it printed on standard error.
    pub stderr: Captured,
    /// The files that it created or changed in its folder, by name; empty if the job has a workspace.
    pub files: Vec<OutputFile>,
    /// The job's folder as the job left it, if the job has a workspace and the tree can be carried. The content of its files
    /// is where that of the job's workspace is.
    pub workspace: Option<Tree>,
    /// What a limit says of itself: its name, its number, its setting.
    pub told: Option<String>,
    /// What it left besides regular files, and why that is not handed back.
    pub skipped: Vec<Skipped>,
    /// The limits that it ran under.
    pub limits: Limits,
    /// How each limit and each boundary was enforced for this job.
    pub enforced: BTreeMap<&'static str, String>,
    /// What it used.
    pub usage: Usage,
}

impl JobResult {
    /// The exit code of a shell: the program's own, or 128 plus the signal that ended it. Never 0 if the job did not end by
    /// itself.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self.ended {
            Ended::Exited(code) => code,
            Ended::Signaled(signal) => 128 + signal,
            Ended::Stopped { status, .. } if status != 0 => status,
            // 128 + SIGKILL: what a program that was stopped looks like from a shell.
            Ended::Stopped { .. } => 137,
        }
    }
}

impl JobResult {
    /// The limits one of which ended the job, in words: name, number, and where it is set. `None` if none did.
    #[must_use]
    pub fn limit_told(&self) -> Option<String> {
        let Ended::Stopped { reason, .. } = self.ended else {
            return None;
        };
        let (own, most) = (&self.limits, &Limits::most());
        let number = |name, value: u64, most: u64| (name, value, most.to_string());
        let setting = |name, value: u64, setting: &str| (name, value, setting.to_owned());
        let milliseconds = u64::try_from(own.wall.as_millis()).unwrap_or(u64::MAX);
        let limits = match reason {
            // It has told itself which of the two it was.
            Reason::Workspace => {
                let bounds =
                    "what is carried is bounded, up to SBX_WORKSPACE_MIB and SBX_WORKSPACE_ENTRIES";
                return Some(self.told.clone().unwrap_or_else(|| bounds.to_owned()));
            }
            Reason::Timeout => vec![setting("wallMs", milliseconds, "SBX_MAX_WALL_MS")],
            Reason::Memory => vec![setting(
                "memoryBytes",
                own.memory_bytes,
                "SBX_MAX_MEMORY_MIB",
            )],
            Reason::Output => vec![number("outputBytes", own.output_bytes, most.output_bytes)],
            Reason::Processes => vec![number("processes", own.processes, most.processes)],
            Reason::Disk => vec![number("diskBytes", own.disk_bytes, most.disk_bytes)],
            Reason::Inodes => vec![number("inodes", own.inodes, most.inodes)],
            Reason::Returned => vec![
                number("returnedBytes", own.returned_bytes, most.returned_bytes),
                number("returnedFiles", own.returned_files, most.returned_files),
            ],
        };
        let told = limits.into_iter().map(|(name, value, most)| {
            format!("{name} is {value}, a call sets limits.{name} up to {most}")
        });
        Some(told.collect::<Vec<_>>().join("; "))
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal that the sandbox did not send.
    Signaled(i32),
    /// By a limit.
    Stopped {
        /// Which.
        reason: Reason,
        /// The exit code that the program had nevertheless, or 128 plus the signal.
        status: i32,
    },
}

impl Ended {
    /// The reason, for programs; `None` if the job ended by itself.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Exited(_) => None,
            Self::Signaled(_) => Some("signal"),
            Self::Stopped { reason, .. } => Some(reason.as_str()),
        }
    }
}

/// The limit that ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It took longer than its time.
    Timeout,
    /// It wanted more memory than it was given.
    Memory,
    /// It printed more than it may.
    Output,
    /// It wanted more processes than it may have, and failed.
    Processes,
    /// Its files took all the room there was, and it failed.
    Disk,
    /// Its files were as many as there may be, and it failed.
    Inodes,
    /// It left more files, or larger ones, than are handed back.
    Returned,
    /// It left a workspace that is more than is carried to the next call.
    Workspace,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::Memory,
        Self::Output,
        Self::Processes,
        Self::Disk,
        Self::Inodes,
        Self::Returned,
        Self::Workspace,
    ];

    /// Its name, for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Processes => "processes",
            Self::Disk => "disk",
            Self::Inodes => "inodes",
            Self::Returned => "returned",
            Self::Workspace => "workspace",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file that a job left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Its path, relative to the job's folder.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
    /// The hash of its content, 64 lower-case hex digits.
    pub sha256: String,
    /// Whether it can be run.
    pub executable: bool,
}

/// Something that a job left and that is not handed back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path, relative to the job's folder, as far as it is text.
    pub name: String,
    /// What it is: `symlink` (of a job without a workspace), `secret` (its name or target has one), `fifo`, `socket`, `device`, `time` (carried as the nearest that can be), `name` (no UTF-8), `depth`, `unreadable`.
    pub kind: String,
}

impl Skipped {
    /// The most that one result names.
    pub(crate) const MOST: usize = 256;
    /// The most characters of a name.
    pub(crate) const MAX_NAME: usize = 1024;

    /// Adds one, with as much of its name as is told; nothing if there are as many as are told.
    pub(crate) fn add(all: &mut Vec<Self>, name: &str, kind: &str) {
        if all.len() < Self::MOST {
            all.push(Self {
                name: name.chars().take(Self::MAX_NAME).collect(),
                kind: kind.to_owned(),
            });
        }
    }
}

/// What a job used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From its beginning to its end.
    pub wall: Duration,
    /// Processor time of all its processes in user mode.
    pub cpu_user: Duration,
    /// The same in the kernel.
    pub cpu_system: Duration,
    /// The most that one of its processes held resident.
    pub max_rss_bytes: u64,
    /// The most that all of them held together, if it was measured.
    pub peak_memory_bytes: Option<u64>,
    /// What its files took in the end.
    pub disk_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_ended_a_job_is_told_with_its_name_number_and_setting() {
        let told = |ended| {
            let result = JobResult {
                provider: "test",
                ended,
                stdout: Captured::default(),
                stderr: Captured::default(),
                workspace: None,
                told: None,
                files: Vec::new(),
                skipped: Vec::new(),
                limits: Limits::default(),
                enforced: BTreeMap::new(),
                usage: Usage::default(),
            };
            result.limit_told()
        };
        let stopped = |reason| told(Ended::Stopped { reason, status: 1 });
        let memory =
            "memoryBytes is 536870912, a call sets limits.memoryBytes up to SBX_MAX_MEMORY_MIB";
        assert_eq!(stopped(Reason::Memory).as_deref(), Some(memory));
        for reason in Reason::ALL {
            let told = stopped(reason).unwrap();
            assert!(told.contains(" is ") && told.contains("up to"), "{told}");
        }
        assert_eq!(told(Ended::Exited(1)), None);
        assert_eq!(told(Ended::Signaled(9)), None);
    }

    #[test]
    fn a_job_that_was_stopped_never_looks_like_a_success() {
        for reason in Reason::ALL {
            let ended = Ended::Stopped { reason, status: 0 };
            assert_eq!(ended.reason(), Some(reason.as_str()));
        }
    }
}
