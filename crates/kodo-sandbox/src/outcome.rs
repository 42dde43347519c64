//! What came of a job.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::Limits;

/// What came of one job that was run.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// The sandbox that ran it.
    pub provider: &'static str,
    /// How it ended.
    pub ended: Ended,
    /// What it printed.
    pub stdout: Captured,
    /// What it complained about.
    pub stderr: Captured,
    /// The files that it created or changed in its folder, by name.
    pub files: Vec<OutputFile>,
    /// What it left beside regular files, and why it is not among them.
    pub skipped: Vec<Skipped>,
    /// The limits that it ran under.
    pub limits: Limits,
    /// What held each limit and each wall, as it was for this very job.
    pub enforced: BTreeMap<&'static str, String>,
    /// What it used.
    pub usage: Usage,
}

impl JobResult {
    /// The exit code as shells give it: the program's own, or 128 and the signal that ended it. Never 0 where
    /// the job did not end by itself.
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
        /// The exit code that the program came to nevertheless, or 128 and the signal.
        status: i32,
    },
}

impl Ended {
    /// A word for programs; none where the job ended by itself.
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
    /// Its time was over.
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
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Memory,
        Self::Output,
        Self::Processes,
        Self::Disk,
        Self::Inodes,
        Self::Returned,
    ];

    /// The word that programs see.
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
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stream as far as it is kept: its beginning and its end, in bounded memory whatever its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    half: usize,
    head: Vec<u8>,
    /// The last bytes behind the head. It grows to twice its bound before it is cut back, so that a byte is
    /// moved at most once.
    tail: Vec<u8>,
    total: u64,
    /// How much of it was missing before something was taken out of what is kept.
    missing: Option<u64>,
}

impl Captured {
    /// Keeps at most so many bytes.
    #[must_use]
    pub fn keeping(bytes: u64) -> Self {
        Self {
            half: usize::try_from(bytes / 2).unwrap_or(usize::MAX / 4),
            ..Self::default()
        }
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (self.half - self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.half)..];
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 2 * self.half {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..surplus);
    }

    /// Takes something out of what is kept: `whole` of a stream that is there from its beginning to its end, else
    /// `head` and `tail` of the two parts that are left of it.
    pub(crate) fn redact(
        &mut self,
        whole: &dyn Fn(&[u8]) -> Vec<u8>,
        head: &dyn Fn(&[u8]) -> Vec<u8>,
        tail: &dyn Fn(&[u8]) -> Vec<u8>,
    ) {
        self.cut();
        if self.truncated() {
            self.missing = Some(self.total - (self.head.len() + self.tail.len()) as u64);
            self.head = head(&self.head);
            self.tail = tail(&self.tail);
        } else {
            self.head.append(&mut self.tail);
            self.head = whole(&self.head);
        }
    }

    /// What is kept of the beginning and of the end, for a sandbox that runs elsewhere and sends it here.
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let kept_tail = self.tail.len().min(self.half);
        (&self.head, &self.tail[self.tail.len() - kept_tail..])
    }

    /// The stream that these are [`parts`](Self::parts) of. None where they are parts of no stream of that
    /// length of which at most so many bytes are kept: whoever sent them is wrong.
    #[must_use]
    pub fn from_parts(bytes: u64, head: Vec<u8>, tail: Vec<u8>, total: u64) -> Option<Self> {
        let half = Self::keeping(bytes).half;
        let kept = head.len() + tail.len();
        let whole = if total > (2 * half) as u64 {
            head.len() == half && tail.len() == half
        } else {
            kept as u64 == total && head.len() == kept.min(half)
        };
        whole.then_some(Self {
            half,
            head,
            tail,
            total,
            missing: None,
        })
    }

    /// How long the stream was in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether something of it is missing in the middle.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.total > (2 * self.half) as u64
    }

    /// What is kept, with a line that says so where something is missing.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let kept_tail = match self.missing {
            None => self.tail.len().min(self.half),
            Some(_) => self.tail.len(),
        };
        let tail = &self.tail[self.tail.len() - kept_tail..];
        let mut all = self.head.clone();
        if self.truncated() {
            let kept = (self.head.len() + tail.len()) as u64;
            let missing = self.missing.unwrap_or_else(|| self.total - kept);
            all.extend_from_slice(format!("\n[{missing} bytes are not kept]\n").as_bytes());
        }
        all.extend_from_slice(tail);
        all
    }

    /// The same as text: what is no UTF-8, and U+0000, which a database cannot hold, become U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).replace('\0', "\u{fffd}")
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
    /// What it is: `symlink`, `fifo`, `socket`, `device`, `name` (no UTF-8), `depth`, `unreadable`.
    pub kind: String,
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
    /// The most that all of them held together, where something measured it.
    pub peak_memory_bytes: Option<u64>,
    /// What its files took in the end.
    pub disk_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_stream_is_kept_whole_and_a_long_one_at_both_ends() {
        let mut short = Captured::keeping(8);
        short.push(b"abc");
        short.push(b"defgh");
        assert_eq!(
            (short.text().as_str(), short.truncated()),
            ("abcdefgh", false)
        );

        let mut long = Captured::keeping(8);
        for byte in b'a'..=b'z' {
            long.push(&[byte]);
        }
        assert_eq!(long.text(), "abcd\n[18 bytes are not kept]\nwxyz");
        assert!(long.truncated());
        assert_eq!(long.total(), 26);
    }

    #[test]
    fn pieces_of_every_size_come_to_the_same() {
        let text: Vec<u8> = (0..5000_u32).map(|it| (it % 251) as u8).collect();
        let whole = {
            let mut whole = Captured::keeping(100);
            whole.push(&text);
            whole.bytes()
        };
        for size in [1, 7, 49, 50, 51, 100, 1000, 4999] {
            let mut pieces = Captured::keeping(100);
            text.chunks(size).for_each(|piece| pieces.push(piece));
            assert_eq!(pieces.bytes(), whole, "{size}");
            assert!(pieces.tail.len() <= 100);
        }
    }

    #[test]
    fn a_stream_that_is_sent_in_parts_is_the_same_there() {
        for length in [0, 1, 4, 5, 8, 9, 100] {
            let mut stream = Captured::keeping(8);
            stream.push(&vec![b'x'; length]);
            let (head, tail) = stream.parts();
            let there = Captured::from_parts(8, head.to_vec(), tail.to_vec(), length as u64);
            let there = there.unwrap();
            assert_eq!(there.bytes(), stream.bytes(), "{length}");
            assert_eq!(there.total(), stream.total());
        }
    }

    #[test]
    fn parts_of_no_stream_are_refused() {
        for (head, tail, total) in [(5, 0, 5), (4, 5, 9), (4, 4, 7), (3, 4, 100), (0, 0, 1)] {
            let parts = Captured::from_parts(8, vec![b'x'; head], vec![b'x'; tail], total);
            assert_eq!(parts, None, "{head} {tail} {total}");
        }
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be() {
        let mut none = Captured::keeping(0);
        none.push(b"abc");
        assert!(none.truncated());
        assert_eq!(none.text(), "\n[3 bytes are not kept]\n");
    }

    #[test]
    fn text_is_what_a_database_can_hold() {
        let mut odd = Captured::keeping(100);
        odd.push(b"a\0b\xffc");
        assert_eq!(odd.text(), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn a_job_that_was_stopped_never_looks_like_a_success() {
        for reason in Reason::ALL {
            let ended = Ended::Stopped { reason, status: 0 };
            assert_eq!(ended.reason(), Some(reason.as_str()));
        }
    }
}
