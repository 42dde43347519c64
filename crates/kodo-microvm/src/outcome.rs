//! What a guest sends of a job, checked against what the job may do, and the result that is made of it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::time::Duration;

use kodo_sandbox::provider::{ReceivedEntries, from_json};
use kodo_sandbox::{Captured, Ended, JobResult, JobSpec, Limits, Reason, SandboxError, Usage};

use crate::config::{Acceleration, NAME};
use crate::wire::{Kind, Outcome, Ready, Refusal, StreamHeader};

/// The most characters of a name or a description that are taken from a guest.
const MAX_WORDS: usize = 1024;
/// The most entries of the list of what is not handed back.
const MAX_SKIPPED: usize = 256;

/// What a guest has sent so far.
#[derive(Debug)]
pub(crate) struct Output {
    limits: Limits,
    streams: Vec<(StreamHeader, Vec<u8>)>,
    entries: ReceivedEntries,
    outcome: Option<Outcome>,
    refusal: Option<Refusal>,
}

impl Output {
    pub(crate) fn new(spec: &JobSpec) -> Self {
        Self {
            limits: spec.limits,
            streams: Vec::new(),
            entries: ReceivedEntries::of(spec),
            outcome: None,
            refusal: None,
        }
    }

    /// Takes a frame. Returns whether it was the last one.
    ///
    /// # Errors
    /// If the protocol does not allow the message here, or the message exceeds a limit of the job.
    pub(crate) fn take(&mut self, kind: Kind, content: &[u8]) -> io::Result<bool> {
        match kind {
            Kind::Stream => {
                let header: StreamHeader = from_json(content)?;
                let kept = header.head.saturating_add(header.tail);
                let good = self.complete()
                    && self.entries.is_empty()
                    && self.streams.len() < 2
                    && kept <= self.limits.kept_bytes;
                self.streams.push((header, Vec::new()));
                check(good)?;
            }
            Kind::Entry => {
                check(self.complete())?;
                self.entries.begin(from_json(content)?, &self.limits)?;
            }
            Kind::Data => {
                if !self.entries.is_empty() {
                    self.entries.append(content)?;
                    return Ok(false);
                }
                let Some((header, held)) = self.streams.last_mut() else {
                    return check(false).map(|()| false);
                };
                check((held.len() + content.len()) as u64 <= header.head + header.tail)?;
                held.extend_from_slice(content);
            }
            Kind::Outcome => {
                check(self.complete() && self.streams.len() == 2)?;
                self.outcome = Some(from_json(content)?);
                return Ok(true);
            }
            Kind::Refusal => {
                self.refusal = Some(from_json(content)?);
                return Ok(true);
            }
            Kind::Ready | Kind::Order => return check(false).map(|()| false),
        }
        Ok(false)
    }

    /// Whether all of what was announced has come.
    fn complete(&self) -> bool {
        let stream = self.streams.last();
        self.entries.is_complete()
            && stream.is_none_or(|(header, held)| header.head + header.tail == held.len() as u64)
    }

    /// The result of the job.
    ///
    /// # Errors
    /// The guest's own, or [`SandboxError::Unavailable`] if what it sent is incomplete or impossible.
    pub(crate) fn result(
        mut self,
        enforced: BTreeMap<&'static str, String>,
    ) -> Result<JobResult, SandboxError> {
        let broken = || SandboxError::Unavailable {
            reason: "the machine broke the protocol".to_owned(),
        };
        if let Some(refusal) = self.refusal {
            return Err(refusal.into());
        }
        let mut outcome = self.outcome.ok_or_else(broken)?;
        let ended = outcome.ended.ended().ok_or_else(broken)?;
        let mut streams = self.streams.into_iter().map(|(header, mut held)| {
            let tail = held.split_off(
                usize::try_from(header.head)
                    .unwrap_or(usize::MAX)
                    .min(held.len()),
            );
            Captured::from_parts(self.limits.kept_bytes, held, tail, header.total)
        });
        let (Some(Some(stdout)), Some(Some(stderr))) = (streams.next(), streams.next()) else {
            return Err(broken());
        };
        let (workspace, fault) = match self.entries.tree() {
            Some(Ok(tree)) if outcome.told.is_none() => (Some(tree), None),
            Some(Err(fault)) => (None, Some(fault)),
            _ => (None, None),
        };
        let told = fault.or(outcome.told.as_deref().map(shortened));
        // The workspace cannot be carried, although the guest reported that the program ended by itself.
        let ended = match (&told, ended) {
            (Some(_), Ended::Exited(status)) => Ended::Stopped {
                reason: Reason::Workspace,
                status,
            },
            (_, ended) => ended,
        };
        let mut files = self.entries.into_files();
        files.sort_by(|one, other| one.name.cmp(&other.name));
        let mut skipped = outcome.take_skipped();
        skipped.truncate(MAX_SKIPPED);
        for one in &mut skipped {
            one.name = shortened(&one.name);
            one.kind = shortened(&one.kind);
        }
        Ok(JobResult {
            provider: NAME,
            ended,
            stdout,
            stderr,
            files,
            workspace,
            told,
            skipped,
            limits: self.limits,
            enforced: with_those_inside(enforced, &outcome.enforced),
            usage: outcome.usage(),
        })
    }

    /// The result of a job whose machine was ended because its time was over.
    pub(crate) fn late(
        self,
        wall: Duration,
        enforced: BTreeMap<&'static str, String>,
    ) -> JobResult {
        let nothing = || Captured::keeping(self.limits.kept_bytes);
        JobResult {
            provider: NAME,
            ended: Ended::Stopped {
                reason: Reason::Timeout,
                // 128 + SIGKILL.
                status: 137,
            },
            stdout: nothing(),
            stderr: nothing(),
            files: Vec::new(),
            workspace: None,
            told: None,
            skipped: Vec::new(),
            limits: self.limits,
            enforced,
            usage: Usage {
                wall,
                ..Usage::default()
            },
        }
    }
}

fn check(good: bool) -> io::Result<()> {
    if good {
        Ok(())
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidData,
            "the machine broke the protocol",
        ))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

/// Adds what confines the job inside the machine, for the names that the jail has.
fn with_those_inside(
    mut enforced: BTreeMap<&'static str, String>,
    inside: &BTreeMap<String, String>,
) -> BTreeMap<&'static str, String> {
    for name in [
        "user",
        "namespaces",
        "landlock",
        "seccomp",
        "proc",
        "memory",
        "processes",
        "disk",
        "inodes",
        "terminals",
        "openFiles",
    ] {
        if let Some(what) = inside.get(name) {
            enforced.insert(name, format!("in the machine: {}", shortened(what)));
        }
    }
    enforced
}

/// What confines a job outside of its machine, in words.
pub(crate) fn enforced(
    acceleration: Acceleration,
    ready: &Ready,
    memory_mib: u64,
) -> BTreeMap<&'static str, String> {
    let kernel: String = ready.kernel.chars().take(64).collect();
    BTreeMap::from([
        (
            "machine",
            format!("one of its own, {memory_mib} MiB, by QEMU with {acceleration}"),
        ),
        ("kernel", format!("one of its own, Linux {kernel}")),
        ("network", "the machine has no network device".to_owned()),
        (
            "emulator",
            "an ordinary user, Landlock, its own list of system calls".to_owned(),
        ),
        (
            "wall",
            "the first process of the jail in the machine; then the machine is switched off"
                .to_owned(),
        ),
        ("output", "the first process of the machine".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::EndedAs;
    use kodo_sandbox::provider::{EntryHeader, EntryKind, json_frame};

    fn job() -> JobSpec {
        let mut job = JobSpec::new(["true"]);
        job.limits.returned_files = 2;
        job.limits.returned_bytes = 10;
        job.limits.kept_bytes = 8;
        job
    }

    fn say(output: &mut Output, kind: Kind, value: &impl serde::Serialize) -> io::Result<bool> {
        let bytes = json_frame(kind, value).unwrap();
        output.take(kind, &bytes[5..])
    }

    fn stream(output: &mut Output, head: &[u8]) -> io::Result<bool> {
        let header = StreamHeader {
            total: head.len() as u64,
            head: head.len() as u64,
            tail: 0,
        };
        say(output, Kind::Stream, &header)?;
        output.take(Kind::Data, head)
    }

    fn file(name: &str, size: u64) -> EntryHeader {
        EntryHeader {
            path: name.into(),
            kind: EntryKind::File(size),
            mode: 0o644,
            modified: 0,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            ended: EndedAs::Exited(3),
            skipped: vec![("x".repeat(5000), "fifo".to_owned())],
            told: None,
            enforced: BTreeMap::from([
                ("memory".to_owned(), "cgroup v2".to_owned()),
                ("invented".to_owned(), String::new()),
            ]),
            wall_us: 1500,
            user_us: 1,
            system_us: 1,
            max_rss: 1,
            peak_memory: None,
            disk_bytes: 0,
        }
    }

    #[test]
    fn what_a_guest_says_in_order_is_a_result() {
        let mut output = Output::new(&job());
        stream(&mut output, b"out").unwrap();
        stream(&mut output, b"").unwrap();
        say(&mut output, Kind::Entry, &file("b/c", 3)).unwrap();
        output.take(Kind::Data, b"ab").unwrap();
        output.take(Kind::Data, b"c").unwrap();
        assert!(say(&mut output, Kind::Outcome, &outcome()).unwrap());
        let result = output.result(BTreeMap::new()).unwrap();
        assert_eq!(result.ended, Ended::Exited(3));
        assert_eq!(result.stdout.text(), "out");
        assert_eq!(result.files[0].content, b"abc");
        assert_eq!(result.skipped[0].name.len(), MAX_WORDS);
        assert_eq!(result.enforced.keys().collect::<Vec<_>>(), [&"memory"]);
    }

    #[test]
    fn what_a_guest_must_not_say_ends_the_talk() {
        let begun = || {
            let mut output = Output::new(&job());
            stream(&mut output, b"").unwrap();
            stream(&mut output, b"").unwrap();
            output
        };
        for bad in [file("../x", 1), file("/x", 1), file("", 1), file("x", 11)] {
            assert!(say(&mut begun(), Kind::Entry, &bad).is_err(), "{bad:?}");
        }
        let mut many = begun();
        for name in ["a", "b"] {
            say(&mut many, Kind::Entry, &file(name, 0)).unwrap();
        }
        assert!(say(&mut many, Kind::Entry, &file("c", 0)).is_err());
        let mut longer = begun();
        say(&mut longer, Kind::Entry, &file("a", 2)).unwrap();
        assert!(longer.take(Kind::Data, b"abc").is_err());
        let mut shorter = begun();
        say(&mut shorter, Kind::Entry, &file("a", 2)).unwrap();
        assert!(say(&mut shorter, Kind::Outcome, &outcome()).is_err());
        let mut kept = Output::new(&job());
        assert!(stream(&mut kept, b"123456789").is_err());
        assert!(begun().take(Kind::Order, b"{}").is_err());
        assert!(Output::new(&job()).take(Kind::Data, b"x").is_err());
    }

    #[test]
    fn streams_that_are_no_streams_are_no_result() {
        let mut output = Output::new(&job());
        let header = StreamHeader {
            total: 100,
            head: 1,
            tail: 0,
        };
        say(&mut output, Kind::Stream, &header).unwrap();
        output.take(Kind::Data, b"x").unwrap();
        stream(&mut output, b"").unwrap();
        say(&mut output, Kind::Outcome, &outcome()).unwrap();
        assert_eq!(
            output.result(BTreeMap::new()).unwrap_err().code(),
            "sandbox_unavailable"
        );
    }
}
