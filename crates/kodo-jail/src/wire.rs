//! What the service and the helper say to each other: frames on a socket, `kind, length, content`.
//!
//! The helper is our own program, but it handles what a job left: whatever it sends is read with bounds.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use kodo_sandbox::{Limits, Reason, Skipped, Usage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest frame: specifications hold arguments and environment, which are bounded by the port.
const MAX_FRAME: usize = 8 * 1024 * 1024;
/// How much of a file goes in one frame.
pub(crate) const CHUNK: usize = 64 * 1024;
/// How much is taken of what is said not to be handed back: entries, and characters of each word.
const MAX_SKIPPED: usize = 256;
const MAX_WORDS: usize = 1024;
/// The largest figure that is believed: every reader of JSON has it exactly.
const MAX_FIGURE: u64 = 1 << 53;
/// Bytes before the content of a frame.
const HEADER: usize = 5;

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
    /// To the helper: hand out a socket of the jail's network.
    Dial = b'C',
    /// From the helper: a socket, which comes with it.
    Door = b'O',
    /// From the helper: [`Started`].
    Started = b'R',
    /// From the helper: [`Fault`].
    Fault = b'E',
    /// From the helper: [`FileHeader`], its content follows.
    File = b'F',
    /// From the helper: [`Exit`], the last one.
    Exit = b'X',
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Spec,
            Self::Data,
            Self::Stop,
            Self::Dial,
            Self::Door,
            Self::Started,
            Self::Fault,
            Self::File,
            Self::Exit,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The job, as the helper needs it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) files: Vec<FileHeader>,
    pub(crate) limits: Limits,
    /// Files of the job's control groups through which the helper enters them; none where there are no groups.
    pub(crate) groups: Vec<PathBuf>,
    /// Users of the machine to become, where the helper is started as user 0, in order of preference.
    pub(crate) become_users: Vec<u32>,
    /// Whether memory and processes are to be watched by the jail's first process, since no cgroup does.
    pub(crate) watch: bool,
    /// Further folders of the machine that are there, read-only.
    pub(crate) read_only: Vec<String>,
    /// Where the service listens in the jail's network, for a program that stays: it has no bound on its time, and
    /// the service is handed sockets of its network.
    pub(crate) resident: Option<u16>,
    /// What stands between the jail and the job, if anything does: the job itself is told to what runs in there,
    /// by another specification after this one.
    pub(crate) enclosed: Option<Enclosed>,
}

/// What the helper becomes, with a kernel of its own in it for the job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Enclosed {
    /// The program on the machine, which is given to the jail.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// What it is told of the job's process, as a file.
    pub(crate) bundle: String,
    /// Devices of the machine that it uses.
    pub(crate) devices: Vec<PathBuf>,
    /// Groups to keep where user 0 is left, for those devices.
    pub(crate) groups: Vec<u32>,
    /// Processes and threads of the machine that it may have.
    pub(crate) processes: u64,
}

/// A file whose content follows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileHeader {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) executable: bool,
}

/// The jail stands and the program runs in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The user of the machine that the job is.
    pub(crate) user: u32,
    /// Version of Landlock that holds.
    pub(crate) landlock: i32,
    /// Whether it has a `/proc`; some containers allow none, and it lives without.
    pub(crate) proc: bool,
}

/// Why nothing was run.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{mechanism}: {reason}")]
pub(crate) struct Fault {
    pub(crate) mechanism: String,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(mechanism: &str, reason: impl ToString) -> Self {
        Self {
            mechanism: mechanism.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Names the mechanism that an error is one of.
    pub(crate) fn at<E: ToString>(mechanism: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::new(mechanism, error)
    }
}

/// Why the first process of the jail ended the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cut {
    Timeout,
    Memory,
    /// There were more files than the job may have, where that can only be seen.
    Inodes,
    Stopped,
}

/// What came of the job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// As `waitpid` has it.
    pub(crate) status: i32,
    pub(crate) cut: Option<Cut>,
    pub(crate) disk_full: bool,
    pub(crate) inodes_full: bool,
    /// The bound on processes was seen to be reached.
    pub(crate) processes_full: bool,
    /// The files were more than are handed back.
    pub(crate) returned_full: bool,
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) wall_ms: u64,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) max_rss: u64,
    pub(crate) peak_memory: Option<u64>,
    pub(crate) disk_bytes: u64,
}

impl Exit {
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

    /// What it says was used, no figure of which can be so large that it could not be stored.
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

    /// Of a job that was ended from outside, with whoever could have said more.
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

/// A frame as bytes.
pub(crate) fn frame(kind: Kind, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + content.len());
    bytes.push(kind as u8);
    // No caller has a frame of four gigabytes: they are bounded by `MAX_FRAME`.
    bytes.extend_from_slice(
        &u32::try_from(content.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    bytes.extend_from_slice(content);
    bytes
}

/// A frame of JSON.
pub(crate) fn json_frame<T: Serialize>(kind: Kind, content: &T) -> io::Result<Vec<u8>> {
    Ok(frame(kind, &serde_json::to_vec(content)?))
}

/// Reads the content of a frame as JSON.
pub(crate) fn from_json<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    serde_json::from_slice(content).map_err(io::Error::from)
}

/// Sends a frame and waits until it is sent.
pub(crate) fn send(to: &mut impl Write, kind: Kind, content: &[u8]) -> io::Result<()> {
    to.write_all(&frame(kind, content))
}

/// Waits for a frame.
pub(crate) fn receive(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let (kind, length) = parse_header(header)?;
    let mut content = vec![0; length];
    from.read_exact(&mut content)?;
    Ok((kind, content))
}

fn parse_header(header: [u8; HEADER]) -> io::Result<(Kind, usize)> {
    let [kind, a, b, c, d] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    match Kind::from_byte(kind) {
        Some(kind) if length <= MAX_FRAME => Ok((kind, length)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no frame of the jail's",
        )),
    }
}

/// Takes frames out of bytes as they come.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, once it is there in full.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (kind, length) = parse_header(*header)?;
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let content = self.bytes[HEADER..HEADER + length].to_vec();
        self.bytes.drain(..HEADER + length);
        Ok(Some((kind, content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let mut all = frame(Kind::Data, b"abc");
        all.extend(frame(Kind::Exit, b""));
        for size in 1..all.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for piece in all.chunks(size) {
                frames.push(piece);
                while let Some(frame) = frames.next().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(
                seen,
                [(Kind::Data, b"abc".to_vec()), (Kind::Exit, Vec::new())]
            );
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_kept() {
        let mut frames = Frames::default();
        frames.push(b"Z\0\0\0\0");
        assert!(frames.next().is_err());
        let mut frames = Frames::default();
        frames.push(b"D\xff\xff\xff\xff");
        assert!(frames.next().is_err());
    }
}
