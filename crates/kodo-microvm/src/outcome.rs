//! What a guest says came of a job, held against what was asked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::time::Duration;

use kodo_sandbox::{
    Captured, Ended, JobResult, JobSpec, Limits, OutputFile, Reason, SandboxError, Usage,
};
use sha2::{Digest, Sha256};

use crate::wire::{FileHeader, Kind, Outcome, Refusal, StreamHeader, from_json};

/// How much is taken of what a guest says in words.
const MAX_WORDS: usize = 1024;
/// How many of the things that are not handed back are taken.
const MAX_SKIPPED: usize = 256;

/// What has been heard so far.
#[derive(Debug)]
pub(crate) struct Heard {
    limits: Limits,
    streams: Vec<(StreamHeader, Vec<u8>)>,
    files: Vec<(FileHeader, Vec<u8>)>,
    outcome: Option<Outcome>,
    refusal: Option<Refusal>,
}

impl Heard {
    pub(crate) fn new(spec: &JobSpec) -> Self {
        Self {
            limits: spec.limits,
            streams: Vec::new(),
            files: Vec::new(),
            outcome: None,
            refusal: None,
        }
    }

    /// Takes a frame. True where it was the last one.
    pub(crate) fn take(&mut self, kind: Kind, content: &[u8]) -> io::Result<bool> {
        match kind {
            Kind::Stream => {
                let header: StreamHeader = from_json(content)?;
                let kept = header.head.saturating_add(header.tail);
                let good = self.complete()
                    && self.files.is_empty()
                    && self.streams.len() < 2
                    && kept <= self.limits.kept_bytes;
                self.streams.push((header, Vec::new()));
                check(good)?;
            }
            Kind::File => {
                let header: FileHeader = from_json(content)?;
                let held: u64 = self.files.iter().map(|(header, _)| header.size).sum();
                let inside = Path::new(&header.name)
                    .components()
                    .all(|it| matches!(it, Component::Normal(_)));
                let good = self.complete()
                    && inside
                    && !header.name.is_empty()
                    && (self.files.len() as u64) < self.limits.returned_files
                    && held.saturating_add(header.size) <= self.limits.returned_bytes;
                check(good)?;
                self.files.push((header, Vec::new()));
            }
            Kind::Data => {
                let (size, held) = match self.files.last_mut() {
                    Some((header, held)) => (header.size, held),
                    None => match self.streams.last_mut() {
                        Some((header, held)) => (header.head + header.tail, held),
                        None => return check(false).map(|()| false),
                    },
                };
                check((held.len() + content.len()) as u64 <= size)?;
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

    /// Whether what was announced has come.
    fn complete(&self) -> bool {
        let file = self.files.last();
        let stream = self.streams.last();
        file.is_none_or(|(header, held)| header.size == held.len() as u64)
            && stream.is_none_or(|(header, held)| header.head + header.tail == held.len() as u64)
    }

    /// The result, where all of it has come.
    pub(crate) fn judge(
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
        self.files
            .sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let mut skipped = outcome.take_skipped();
        skipped.truncate(MAX_SKIPPED);
        for one in &mut skipped {
            one.name = shortened(&one.name);
            one.kind = shortened(&one.kind);
        }
        Ok(JobResult {
            provider: crate::provider::NAME,
            ended,
            stdout,
            stderr,
            files: self.files.into_iter().map(returned).collect(),
            skipped,
            limits: self.limits,
            enforced: with_those_inside(enforced, &outcome.enforced),
            usage: outcome.usage(),
        })
    }

    /// The result of a job whose machine was switched off because its time was over.
    pub(crate) fn late(
        self,
        wall: Duration,
        enforced: BTreeMap<&'static str, String>,
    ) -> JobResult {
        let nothing = || Captured::keeping(self.limits.kept_bytes);
        JobResult {
            provider: crate::provider::NAME,
            ended: Ended::Stopped {
                reason: Reason::Timeout,
                // 128 + SIGKILL.
                status: 137,
            },
            stdout: nothing(),
            stderr: nothing(),
            files: Vec::new(),
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

fn returned((header, content): (FileHeader, Vec<u8>)) -> OutputFile {
    let mut sha256 = String::with_capacity(64);
    for byte in Sha256::digest(&content) {
        // Writing to a string does not fail.
        let _ = write!(sha256, "{byte:02x}");
    }
    OutputFile {
        name: header.name,
        sha256,
        content,
        executable: header.executable,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

/// What holds the job inside, as far as the jail has a word for it.
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
    ] {
        if let Some(what) = inside.get(name) {
            enforced.insert(name, format!("in the machine: {}", shortened(what)));
        }
    }
    enforced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EndedAs, json_frame};

    fn job() -> JobSpec {
        let mut job = JobSpec::new(["true"]);
        job.limits.returned_files = 2;
        job.limits.returned_bytes = 10;
        job.limits.kept_bytes = 8;
        job
    }

    fn say(heard: &mut Heard, kind: Kind, value: &impl serde::Serialize) -> io::Result<bool> {
        let bytes = json_frame(kind, value).unwrap();
        heard.take(kind, &bytes[5..])
    }

    fn stream(heard: &mut Heard, head: &[u8]) -> io::Result<bool> {
        let header = StreamHeader {
            total: head.len() as u64,
            head: head.len() as u64,
            tail: 0,
        };
        say(heard, Kind::Stream, &header)?;
        heard.take(Kind::Data, head)
    }

    fn file(name: &str, size: u64) -> FileHeader {
        FileHeader {
            name: name.to_owned(),
            size,
            executable: false,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            ended: EndedAs::Exited(3),
            skipped: vec![("x".repeat(5000), "fifo".to_owned())],
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
        let mut heard = Heard::new(&job());
        stream(&mut heard, b"out").unwrap();
        stream(&mut heard, b"").unwrap();
        say(&mut heard, Kind::File, &file("b/c", 3)).unwrap();
        heard.take(Kind::Data, b"ab").unwrap();
        heard.take(Kind::Data, b"c").unwrap();
        assert!(say(&mut heard, Kind::Outcome, &outcome()).unwrap());
        let result = heard.judge(BTreeMap::new()).unwrap();
        assert_eq!(result.ended, Ended::Exited(3));
        assert_eq!(result.stdout.text(), "out");
        assert_eq!(result.files[0].sha256, kodo_sandbox_sha("abc"));
        assert_eq!(result.skipped[0].name.len(), MAX_WORDS);
        assert_eq!(result.enforced.keys().collect::<Vec<_>>(), [&"memory"]);
    }

    fn kodo_sandbox_sha(text: &str) -> String {
        returned((file("x", 3), text.as_bytes().to_vec())).sha256
    }

    #[test]
    fn what_a_guest_must_not_say_ends_the_talk() {
        let begun = || {
            let mut heard = Heard::new(&job());
            stream(&mut heard, b"").unwrap();
            stream(&mut heard, b"").unwrap();
            heard
        };
        for bad in [file("../x", 1), file("/x", 1), file("", 1), file("x", 11)] {
            assert!(say(&mut begun(), Kind::File, &bad).is_err(), "{bad:?}");
        }
        let mut many = begun();
        for name in ["a", "b"] {
            say(&mut many, Kind::File, &file(name, 0)).unwrap();
        }
        assert!(say(&mut many, Kind::File, &file("c", 0)).is_err());
        let mut longer = begun();
        say(&mut longer, Kind::File, &file("a", 2)).unwrap();
        assert!(longer.take(Kind::Data, b"abc").is_err());
        let mut shorter = begun();
        say(&mut shorter, Kind::File, &file("a", 2)).unwrap();
        assert!(say(&mut shorter, Kind::Outcome, &outcome()).is_err());
        let mut kept = Heard::new(&job());
        assert!(stream(&mut kept, b"123456789").is_err());
        assert!(begun().take(Kind::Order, b"{}").is_err());
        assert!(Heard::new(&job()).take(Kind::Data, b"x").is_err());
    }

    #[test]
    fn streams_that_are_no_streams_are_no_result() {
        let mut heard = Heard::new(&job());
        let header = StreamHeader {
            total: 100,
            head: 1,
            tail: 0,
        };
        say(&mut heard, Kind::Stream, &header).unwrap();
        heard.take(Kind::Data, b"x").unwrap();
        stream(&mut heard, b"").unwrap();
        say(&mut heard, Kind::Outcome, &outcome()).unwrap();
        assert_eq!(
            heard.judge(BTreeMap::new()).unwrap_err().code(),
            "sandbox_unavailable"
        );
    }
}
