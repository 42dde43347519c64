//! The messages between the service and a guest, in frames on a virtual serial port.
//!
//! The guest runs untrusted programs: whatever it sends is read with limits and checked against what was asked.

use std::collections::BTreeMap;

use kodo_contract::TreeBounds;
use kodo_sandbox::provider::FrameKind;
use kodo_sandbox::{Ended, JobResult, JobSpec, Limits, Reason, SandboxError, Skipped, Usage};
use serde::{Deserialize, Serialize};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// From the guest: [`Ready`], the first one.
    Ready = b'R',
    /// To the guest: [`Order`], then the entries of the job's folder.
    Order = b'J',
    /// Content of the file or stream at hand.
    Data = b'D',
    /// From the guest: [`StreamHeader`], its content follows.
    Stream = b'S',
    /// To the guest and back: [`EntryHeader`](kodo_sandbox::provider::EntryHeader); the content of a file follows.
    Entry = b'F',
    /// From the guest: [`Outcome`], the last one.
    Outcome = b'X',
    /// From the guest: [`Refusal`], the last one.
    Refusal = b'E',
}

impl FrameKind for Kind {
    const ALL: &'static [Self] = &[
        Self::Ready,
        Self::Order,
        Self::Data,
        Self::Stream,
        Self::Entry,
        Self::Outcome,
        Self::Refusal,
    ];

    fn byte(self) -> u8 {
        self as u8
    }
}

/// The guest has come up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Version of the guest's kernel.
    pub kernel: String,
}

/// The job, as the guest needs it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working folder.
    pub cwd: String,
    /// Its limits.
    pub limits: Limits,
    /// How many entries of the job's folder follow.
    pub entries: u64,
    /// How much of the folder is handed back with all that it has; without it only new and changed files are.
    pub carried: Option<TreeBounds>,
}

impl Order {
    /// What is to be sent of a job.
    #[must_use]
    pub fn of(spec: &JobSpec, entries: u64) -> Self {
        Self {
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            limits: spec.limits,
            entries,
            carried: spec.workspace.as_ref().map(|it| it.bounds),
        }
    }
}

/// A stream as far as it is kept; its head follows, then its tail.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StreamHeader {
    /// How long it was in all.
    pub total: u64,
    /// Bytes of the head.
    pub head: u64,
    /// Bytes of the tail.
    pub tail: u64,
}

/// How the job ended, in the form that is sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum EndedAs {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// By a limit, by its place in [`Reason::ALL`].
    Stopped(usize, i32),
}

impl EndedAs {
    fn of(ended: Ended) -> Self {
        match ended {
            Ended::Exited(code) => Self::Exited(code),
            Ended::Signaled(signal) => Self::Signaled(signal),
            Ended::Stopped { reason, status } => {
                let place = Reason::ALL.iter().position(|it| *it == reason);
                Self::Stopped(place.unwrap_or(usize::MAX), status)
            }
        }
    }

    /// The same as the port has it; `None` if it is impossible.
    #[must_use]
    pub fn ended(self) -> Option<Ended> {
        match self {
            Self::Exited(code) => (0..=255).contains(&code).then_some(Ended::Exited(code)),
            Self::Signaled(signal) => (1..=64)
                .contains(&signal)
                .then_some(Ended::Signaled(signal)),
            Self::Stopped(place, status) if (0..=255).contains(&status) => {
                Reason::ALL.get(place).map(|reason| Ended::Stopped {
                    reason: *reason,
                    status,
                })
            }
            Self::Stopped(..) => None,
        }
    }
}

/// What came of the job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub ended: EndedAs,
    /// Name and kind of what is not handed back.
    pub skipped: Vec<(String, String)>,
    /// The limit that the workspace exceeds, if it is not carried.
    #[serde(default)]
    pub told: Option<String>,
    /// What held it inside the machine.
    pub enforced: BTreeMap<String, String>,
    /// From its beginning to its end.
    pub wall_us: u64,
    /// Processor time in user mode, in the machine.
    pub user_us: u64,
    /// The same in its kernel.
    pub system_us: u64,
    /// The most that one process held resident.
    pub max_rss: u64,
    /// The most that all held.
    pub peak_memory: Option<u64>,
    /// What its files took.
    pub disk_bytes: u64,
}

impl Outcome {
    /// What is to be sent of a result, beside streams and files.
    #[must_use]
    pub fn of(result: &JobResult) -> Self {
        let micros = |it: std::time::Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX);
        let usage = &result.usage;
        Self {
            ended: EndedAs::of(result.ended),
            skipped: result
                .skipped
                .iter()
                .map(|it| (it.name.clone(), it.kind.clone()))
                .collect(),
            told: result.told.clone(),
            enforced: result
                .enforced
                .iter()
                .map(|(name, what)| ((*name).to_owned(), what.clone()))
                .collect(),
            wall_us: micros(usage.wall),
            user_us: micros(usage.cpu_user),
            system_us: micros(usage.cpu_system),
            max_rss: usage.max_rss_bytes,
            peak_memory: usage.peak_memory_bytes,
            disk_bytes: usage.disk_bytes,
        }
    }

    /// What it says was used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let micros = std::time::Duration::from_micros;
        Usage {
            wall: micros(self.wall_us),
            cpu_user: micros(self.user_us),
            cpu_system: micros(self.system_us),
            max_rss_bytes: self.max_rss,
            peak_memory_bytes: self.peak_memory,
            disk_bytes: self.disk_bytes,
        }
    }

    /// What it says is not handed back.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
            .into_iter()
            .map(|(name, kind)| Skipped { name, kind })
            .collect()
    }
}

/// Why nothing was run.
#[derive(Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The job is invalid.
    Invalid(String),
    /// The sandbox cannot run it: the mechanism, and the reason.
    Refused(String, String),
    /// Something went wrong.
    Unavailable(String),
}

impl From<SandboxError> for Refusal {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::JobInvalid { reason } => Self::Invalid(reason),
            SandboxError::Refused { mechanism, reason } => Self::Refused(mechanism, reason),
            SandboxError::Unavailable { reason } => Self::Unavailable(reason),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<Refusal> for SandboxError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(reason) => Self::JobInvalid { reason },
            Refusal::Refused(mechanism, reason) => Self::Refused { mechanism, reason },
            Refusal::Unavailable(reason) => Self::Unavailable { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_that_cannot_be_is_none() {
        assert_eq!(EndedAs::Exited(256).ended(), None);
        assert_eq!(EndedAs::Exited(-1).ended(), None);
        assert_eq!(EndedAs::Signaled(0).ended(), None);
        assert_eq!(EndedAs::Stopped(99, 1).ended(), None);
        for reason in Reason::ALL {
            let ended = Ended::Stopped {
                reason,
                status: 137,
            };
            assert_eq!(EndedAs::of(ended).ended(), Some(ended));
        }
    }
}
