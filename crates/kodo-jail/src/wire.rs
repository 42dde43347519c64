//! The messages between the service and the helper, in frames on a socket.
//!
//! The helper is our own program, but it handles what a job left: whatever it sends is read with limits.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kodo_contract::TreeBounds;
use kodo_sandbox::provider::FrameKind;
use kodo_sandbox::{Limits, Reason, Skipped, Usage};
use serde::{Deserialize, Serialize};

use crate::shortage::number_of;

/// How much is taken of the list of what is not handed back: entries, and characters of each name and kind.
const MAX_SKIPPED: usize = 256;
const MAX_WORDS: usize = 1024;
/// The largest figure that is passed on: every reader of JSON represents it exactly.
const MAX_FIGURE: u64 = 1 << 53;

/// Whose kernel a job makes its system calls to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The machine's.
    Machine,
    /// gVisor's, a process of the machine: the namespaces, the file tree and Landlock are outside of it, and the
    /// sandbox that `runsc` made takes their place inside.
    Gvisor,
}

impl Kernel {
    pub(crate) fn is_gvisor(self) -> bool {
        self == Self::Gvisor
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the helper: [`Spec`].
    Spec = b'S',
    /// To the helper and back: content of the file at hand.
    Data = b'D',
    /// To the helper: end the job, it printed too much.
    Stop = b'K',
    /// To the helper: make a socket of the jail's network and send it.
    NewSocket = b'C',
    /// From the helper: a socket, attached to this frame.
    Socket = b'O',
    /// From the helper: [`Started`].
    Started = b'R',
    /// From the helper: [`Fault`].
    Fault = b'E',
    /// To the helper and back: [`EntryHeader`](kodo_sandbox::provider::EntryHeader); the content of a file follows.
    Entry = b'F',
    /// From the helper: [`Exit`], the last one.
    Exit = b'X',
}

impl FrameKind for Kind {
    const ALL: &'static [Self] = &[
        Self::Spec,
        Self::Data,
        Self::Stop,
        Self::NewSocket,
        Self::Socket,
        Self::Started,
        Self::Fault,
        Self::Entry,
        Self::Exit,
    ];

    fn byte(self) -> u8 {
        self as u8
    }
}

/// The job, as the helper needs it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    /// How many entries of the job's folder follow.
    pub(crate) entries: u64,
    /// How much of the folder is handed back with all that it has; without it only new and changed files are.
    pub(crate) carried: Option<TreeBounds>,
    pub(crate) limits: Limits,
    /// Files of the job's cgroups by which the helper enters them; empty if there are no cgroups.
    pub(crate) groups: Vec<PathBuf>,
    /// Users of the machine to become if the helper is started as user 0, in order of preference.
    pub(crate) become_users: Vec<u32>,
    /// Whether the jail's init watches memory and processes, because no cgroup limits them.
    pub(crate) watch: bool,
    /// Whether the job may trace its own processes, as a debugger does.
    pub(crate) tracing: bool,
    /// Whether it is explained what the job is refused.
    pub(crate) explain: bool,
    /// Further folders of the machine that the job can read.
    pub(crate) read_only: Vec<String>,
    /// For a jailed service, the port in the jail's network on which the starting process listens. Its time is unlimited,
    /// and that process is sent sockets of its network.
    pub(crate) service_port: Option<u16>,
    /// The enclosure between the jail and the job, if there is one. The job itself is then described by another
    /// specification after this one, which the init inside the enclosure reads.
    pub(crate) enclosed: Option<Enclosed>,
}

/// An enclosure, as the helper needs it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Enclosed {
    /// The program on the machine, which is mounted into the jail.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The content of its `config.json`.
    pub(crate) bundle: String,
    /// Devices of the machine that it uses.
    pub(crate) devices: Vec<PathBuf>,
    /// Groups to keep when user 0 is left, for those devices.
    pub(crate) groups: Vec<u32>,
    /// Processes and threads of the machine that it may have.
    pub(crate) processes: u64,
}

/// The jail is complete and the program runs in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The user of the machine that the job is.
    pub(crate) user: u32,
    /// The version of Landlock that restricts it.
    pub(crate) landlock: i32,
    /// What its `/proc` shows.
    pub(crate) proc: Proc,
    /// Whether it has pseudoterminals; some containers allow none.
    pub(crate) terminals: bool,
    /// How many files a process of it can have open.
    pub(crate) open_files: u64,
}

/// What a job's `/proc` shows; some containers allow only a part of it, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proc {
    /// Its own processes, and what is true for the job of the rest.
    Whole,
    /// Its own processes.
    Processes,
    /// There is none.
    None,
}

/// Why nothing was run.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{mechanism}: {reason}")]
pub(crate) struct Fault {
    pub(crate) mechanism: String,
    pub(crate) reason: String,
    /// The kernel's number, if it was the kernel that said so.
    #[serde(default)]
    pub(crate) errno: Option<i32>,
}

impl Fault {
    pub(crate) fn new(mechanism: &str, reason: impl ToString) -> Self {
        Self {
            mechanism: mechanism.to_owned(),
            reason: reason.to_string(),
            errno: None,
        }
    }

    /// A fault for an error, with what was tried.
    pub(crate) fn because(
        mechanism: &str,
        what: impl fmt::Display,
        error: impl Error + 'static,
    ) -> Self {
        Self {
            errno: number_of(&error),
            ..Self::new(mechanism, format_args!("{what}: {error}"))
        }
    }

    /// Makes faults of this mechanism from errors.
    pub(crate) fn at<E: Error + 'static>(mechanism: &'static str) -> impl Fn(E) -> Self {
        move |error| Self {
            errno: number_of(&error),
            ..Self::new(mechanism, error)
        }
    }
}

/// Why the jail's init ended the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cut {
    Timeout,
    Memory,
    /// There were more files than the job may have, if files are counted and not limited.
    Inodes,
    Stopped,
}

/// What came of the job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// As from `waitpid`.
    pub(crate) status: i32,
    pub(crate) cut: Option<Cut>,
    pub(crate) disk_full: bool,
    pub(crate) inodes_full: bool,
    /// The watch saw the limit on processes reached.
    pub(crate) processes_full: bool,
    /// The files were more than are handed back.
    pub(crate) returned_full: bool,
    /// The limit that the tree exceeds, if not all of it was handed back.
    pub(crate) not_carried: Option<String>,
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) wall_ms: u64,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) max_rss: u64,
    pub(crate) peak_memory: Option<u64>,
    pub(crate) disk_bytes: u64,
    /// What the job was refused, if that is explained.
    #[serde(default)]
    pub(crate) refused: Option<Vec<String>>,
}

impl Exit {
    /// The limit that the tree exceeds, in its own words.
    pub(crate) fn not_carried(&mut self) -> Option<String> {
        let told = self.not_carried.take()?;
        Some(told.chars().take(MAX_WORDS).collect())
    }

    pub(crate) fn skipped(&mut self) -> Vec<Skipped> {
        let shortened = |text: String| text.chars().take(MAX_WORDS).collect();
        std::mem::take(&mut self.skipped)
            .into_iter()
            .take(MAX_SKIPPED)
            .map(|(name, kind)| Skipped {
                name: shortened(name),
                kind: shortened(kind),
            })
            .collect()
    }

    /// What was used. No figure is so large that it could not be stored.
    pub(crate) fn usage(&self, seen_memory: Option<u64>) -> Usage {
        let bounded = |it: u64| it.min(MAX_FIGURE);
        Usage {
            wall: Duration::from_millis(bounded(self.wall_ms)),
            cpu_user: Duration::from_micros(bounded(self.user_us)),
            cpu_system: Duration::from_micros(bounded(self.system_us)),
            max_rss_bytes: bounded(self.max_rss),
            peak_memory_bytes: seen_memory.or(self.peak_memory).map(bounded),
            disk_bytes: bounded(self.disk_bytes),
        }
    }

    /// For a job that was killed from outside together with the process that would have sent this.
    pub(crate) fn cut_off(reason: Reason, wall: Duration) -> Self {
        Self {
            // By SIGKILL.
            status: 9,
            cut: Some(match reason {
                Reason::Memory => Cut::Memory,
                _ => Cut::Timeout,
            }),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            ..Self::default()
        }
    }
}
