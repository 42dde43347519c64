//! What a job was refused and by which rule, for a person who asks why a program does not work in it.
//!
//! Nothing is decided here: what the filter of system calls refuses is refused with the same error, and what it allows the kernel
//! carries out or not, as without an explanation.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::seccomp::{LOOKED_AT, refusal};
use crate::layout::WRITABLE;
use crate::sys::{self, Asked};

/// The most that is told.
const MOST: usize = 100;
/// The most bytes of a path that are read.
const PATH: usize = 1024;

/// The listener of the job's filter, and what it has heard.
pub(crate) struct Explainer {
    pub(crate) listener: OwnedFd,
    told: BTreeMap<String, u64>,
}

impl Explainer {
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            told: BTreeMap::new(),
        }
    }

    /// Answers one call.
    pub(crate) fn answer(&mut self) {
        let listener = self.listener.as_fd();
        let Ok(asked) = sys::asked(listener) else {
            return;
        };
        let (error, what) = if LOOKED_AT.contains(&asked.call) {
            (None, looked_for(&asked))
        } else {
            let (errno, rule) = refusal(asked.call);
            (Some(errno), Some(rule))
        };
        sys::answer(listener, &asked, error);
        if let Some(what) = what
            && (self.told.len() < MOST || self.told.contains_key(&what))
        {
            *self.told.entry(what).or_default() += 1;
        }
    }

    /// A line for each thing that was refused, with how often.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.told.iter();
        lines
            .map(|(what, count)| format!("{what} ({count})"))
            .collect()
    }
}

/// What of a call that the filter allows will fail by a rule of the jail, as far as that can be seen before it.
fn looked_for(asked: &Asked) -> Option<String> {
    let [first, second, third, ..] = asked.arguments;
    match asked.call {
        libc::SYS_openat => opened(&path(asked, second)?, third),
        libc::SYS_connect => connected(&memory(asked, second, 28)?),
        // `open`, where there is one.
        _ => opened(&path(asked, first)?, second),
    }
}

fn opened(path: &str, flags: u64) -> Option<String> {
    let top = path.strip_prefix('/')?.split('/').next()?;
    let below = |folder: &str| Path::new(path).starts_with(folder);
    if WRITABLE.iter().any(|(folder, _)| below(folder)) || below("/dev") {
        return None;
    }
    let writes = flags & (libc::O_ACCMODE | libc::O_CREAT) as u64 != 0;
    let metadata = fs::metadata(path);
    if below("/proc") || below("/sys") {
        let below = path.strip_prefix("/proc/").unwrap_or_default();
        // A process may have ended.
        let process = below.starts_with(|first: char| first.is_ascii_digit())
            || below.starts_with("self")
            || below.starts_with("thread-self");
        return (metadata.is_err() && !process)
            .then(|| format!("{path}: of the machine, and not there in a job"));
    }
    if writes {
        let folders = WRITABLE.map(|(folder, _)| folder).join(", ");
        return Some(format!("{path}: read-only; a job writes to {folders}"));
    }
    let elsewhere = top == "var" || !Path::new("/").join(top).exists();
    (metadata.is_err() && elsewhere).then(|| {
        format!("{path}: not in the job's file tree; SBX_READ_ONLY names further folders, --file brings a file")
    })
}

fn connected(address: &[u8]) -> Option<String> {
    let family = i32::from(u16::from_ne_bytes(address.get(..2)?.try_into().ok()?));
    let (to, own) = match family {
        libc::AF_INET => {
            let to = Ipv4Addr::from(<[u8; 4]>::try_from(address.get(4..8)?).ok()?);
            (to.to_string(), to.is_loopback() || to.is_unspecified())
        }
        libc::AF_INET6 => {
            let to = Ipv6Addr::from(<[u8; 16]>::try_from(address.get(8..24)?).ok()?);
            (to.to_string(), to.is_loopback() || to.is_unspecified())
        }
        _ => return None,
    };
    (!own).then(|| format!("{to}: no network but a loopback of the job's own"))
}

fn path(asked: &Asked, address: u64) -> Option<String> {
    let bytes = memory(asked, address, PATH)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}

/// Reads memory of the job's process, at most so many bytes. What it says may change before the kernel reads it again.
fn memory(asked: &Asked, address: u64, most: usize) -> Option<Vec<u8>> {
    let file = File::open(format!("/proc/{}/mem", asked.pid)).ok()?;
    let mut bytes = vec![0; most];
    let count = file.read_at(&mut bytes, address).ok()?;
    bytes.truncate(count);
    Some(bytes)
}
