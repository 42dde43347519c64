//! What host and guest say to each other: frames on a port, `kind, length, content`.
//!
//! The guest runs what nobody trusts. Whatever it sends is read with bounds, and held against what was asked.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use kodo_sandbox::{Ended, JobResult, JobSpec, Limits, Reason, SandboxError, Skipped, Usage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest frame: specifications hold arguments and environment, which are bounded by the port.
const MAX_FRAME: usize = 8 * 1024 * 1024;
/// How much of a file or a stream goes in one frame.
pub const CHUNK: usize = 64 * 1024;
/// Bytes before the content of a frame.
const HEADER: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// From the guest: [`Ready`], the first one.
    Ready = b'R',
    /// To the guest: [`Order`], then the content of its files.
    Order = b'J',
    /// Content of the file or stream at hand.
    Data = b'D',
    /// From the guest: [`StreamHeader`], its content follows.
    Stream = b'S',
    /// From the guest: [`FileHeader`], its content follows.
    File = b'F',
    /// From the guest: [`Outcome`], the last one.
    Outcome = b'X',
    /// From the guest: [`Refusal`], the last one.
    Refusal = b'E',
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Ready,
            Self::Order,
            Self::Data,
            Self::Stream,
            Self::File,
            Self::Outcome,
            Self::Refusal,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
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
    /// Bounds.
    pub limits: Limits,
    /// Files whose content follows.
    pub files: Vec<FileHeader>,
}

impl Order {
    /// What is to be sent of a job.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            limits: spec.limits,
            files: spec
                .files
                .iter()
                .map(|file| FileHeader {
                    name: file.name.clone(),
                    size: file.content.len() as u64,
                    executable: file.executable,
                })
                .collect(),
        }
    }
}

/// A file whose content follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileHeader {
    /// Its path below the job's folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it can be run.
    pub executable: bool,
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

/// How the job ended, in the guest's words.
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

    /// The same as the port has it; none where it is nonsense.
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
    /// The job is none.
    Invalid(String),
    /// Something is missing: what, and why.
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

/// A frame as bytes.
#[must_use]
pub fn frame(kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + content.len());
    bytes.push(kind as u8);
    // No caller has a frame of four gigabytes: they are bounded by `MAX_FRAME`.
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// A value as a frame.
///
/// # Errors
/// Where it is larger than any frame.
pub fn json_frame(kind: Kind, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let content = serde_json::to_vec(value)?;
    if content.len() > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is too large to be sent",
        ));
    }
    Ok(frame(kind, &content))
}

/// A value from the content of a frame.
///
/// # Errors
/// Where it is something else.
pub fn from_json<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    serde_json::from_slice(content).map_err(io::Error::from)
}

/// Sends content in as many frames as it takes.
///
/// # Errors
/// Where nobody takes them.
pub fn send_data(to: &mut impl Write, content: &[u8]) -> io::Result<()> {
    content
        .chunks(CHUNK)
        .try_for_each(|chunk| to.write_all(&frame(Kind::Data, chunk)))
}

/// Waits for a frame.
///
/// # Errors
/// Where none comes, or something that is none.
pub fn receive(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let (kind, length) = parse(header)?;
    let mut content = vec![0; length];
    from.read_exact(&mut content)?;
    Ok((kind, content))
}

fn parse(header: [u8; HEADER]) -> io::Result<(Kind, usize)> {
    let [kind, length @ ..] = header;
    let length = u32::from_le_bytes(length) as usize;
    match Kind::from_byte(kind) {
        Some(kind) if length <= MAX_FRAME => Ok((kind, length)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no frame",
        )),
    }
}

/// Frames out of bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    read: usize,
}

impl Frames {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that have come and were not taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.read
    }

    /// The next whole one.
    ///
    /// # Errors
    /// Where what comes is none.
    pub fn take(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let rest = &self.bytes[self.read..];
        let Some(header) = rest.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (kind, length) = parse(*header)?;
        let Some(content) = rest.get(HEADER..HEADER + length) else {
            return Ok(None);
        };
        let content = content.to_vec();
        self.read += HEADER + length;
        Ok(Some((kind, content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let mut bytes = frame(Kind::Data, b"abc");
        bytes.extend(frame(Kind::File, b""));
        bytes.extend(frame(Kind::Outcome, &[7; 1000]));
        for size in [1, 2, 5, 9, 2000] {
            let mut frames = Frames::default();
            let mut all = Vec::new();
            for piece in bytes.chunks(size) {
                frames.push(piece);
                while let Some(one) = frames.take().unwrap() {
                    all.push(one);
                }
            }
            assert_eq!(all[0], (Kind::Data, b"abc".to_vec()));
            assert_eq!(all[1], (Kind::File, Vec::new()));
            assert_eq!(all[2], (Kind::Outcome, vec![7; 1000]), "{size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_no_allocation() {
        let mut frames = Frames::default();
        frames.push(&[b'D', 0xff, 0xff, 0xff, 0xff]);
        assert!(frames.take().is_err());
        frames = Frames::default();
        frames.push(b"hello");
        assert!(frames.take().is_err());
    }

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
