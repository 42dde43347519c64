//! Sends the files that a job left: regular files only, no link followed, number and size limited.
//!
//! Every process of the job has ended by now, so nothing changes meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use kodo_sandbox::Limits;
use kodo_sandbox::provider::{CHUNK, FileHeader, send};
use rustix::fs::{CWD, Mode, OFlags, openat};
use sha2::{Digest, Sha256};

#[cfg(feature = "weaken")]
use crate::defence::{Defence, on};
use crate::wire::Kind;

/// The greatest depth of folders that is searched.
const MAX_DEPTH: usize = 64;
/// The most entries in the list of what is not handed back.
const MAX_SKIPPED: usize = 256;
/// The most characters of a name in that list.
const MAX_NAME: usize = 1024;

/// SHA-256 of a file.
pub(crate) type Hash = [u8; 32];

/// A file as the job was given it.
pub(crate) struct Given {
    pub(crate) size: u64,
    pub(crate) hash: Hash,
    pub(crate) executable: bool,
}

/// What was not handed back.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) skipped: Vec<(String, String)>,
    /// There were more or larger files than are handed back.
    pub(crate) full: bool,
}

/// Sends every regular file below a folder, except those that are as they were given.
pub(crate) fn send_files(
    folder: &Path,
    given: &BTreeMap<String, Given>,
    limits: &Limits,
    to: &mut impl Write,
) -> io::Result<Collected> {
    let mut walk = Walk {
        given,
        files_left: limits.returned_files,
        bytes_left: limits.returned_bytes,
        collected: Collected::default(),
    };
    let root = open(CWD, folder, OFlags::DIRECTORY)?;
    walk.folder(root, "", 0, to)?;
    Ok(walk.collected)
}

/// Opens without following a link, and without waiting for the other end of a fifo.
fn open(at: impl std::os::fd::AsFd, name: &Path, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    Ok(openat(at, name, flags, Mode::empty())?)
}

struct Walk<'a> {
    given: &'a BTreeMap<String, Given>,
    files_left: u64,
    bytes_left: u64,
    collected: Collected,
}

impl Walk<'_> {
    fn skip(&mut self, mut name: String, kind: &str) {
        let most = name.char_indices().nth(MAX_NAME).map(|(at, _)| at);
        name.truncate(most.unwrap_or(name.len()));
        if self.collected.skipped.len() < MAX_SKIPPED {
            self.collected.skipped.push((name, kind.to_owned()));
        }
    }

    fn folder(
        &mut self,
        folder: OwnedFd,
        prefix: &str,
        depth: usize,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        // The order of a folder's entries is arbitrary; that of a result is not.
        names.sort();
        for name in names {
            if self.collected.full {
                return Ok(());
            }
            let Ok(text) = String::from_utf8(name.clone()) else {
                self.skip(
                    format!("{prefix}{}", String::from_utf8_lossy(&name)),
                    "name",
                );
                continue;
            };
            let full = format!("{prefix}{text}");
            self.entry(&folder, &text, full, depth, to)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &str,
        full: String,
        depth: usize,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let opened = open(folder, Path::new(name), OFlags::empty());
        #[cfg(feature = "weaken")]
        let opened = if on(Defence::NoFollow) {
            opened
        } else {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            openat(folder, name, flags, Mode::empty()).map_err(io::Error::from)
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) => {
                let kind = match rustix::io::Errno::from_io_error(&error) {
                    Some(rustix::io::Errno::LOOP) => "symlink",
                    Some(rustix::io::Errno::NXIO) => "socket",
                    _ => "unreadable",
                };
                self.skip(full, kind);
                return Ok(());
            }
        };
        let file = File::from(fd);
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            if depth + 1 == MAX_DEPTH {
                self.skip(full, "depth");
                return Ok(());
            }
            return self.folder(file.into(), &format!("{full}/"), depth + 1, to);
        }
        if !kind.is_file() {
            let word = if kind.is_fifo() { "fifo" } else { "device" };
            self.skip(full, word);
            return Ok(());
        }
        self.file(file, &metadata, full, to)
    }

    fn file(
        &mut self,
        file: File,
        metadata: &fs::Metadata,
        name: String,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let size = metadata.len();
        let executable = metadata.mode() & 0o100 != 0;
        if self.given.get(&name).is_some_and(|given| {
            given.size == size
                && given.executable == executable
                && hash_of(&file).is_ok_and(|it| it == given.hash)
        }) {
            return Ok(());
        }
        (&file).rewind()?;
        if self.files_left == 0 || size > self.bytes_left {
            self.collected.full = true;
            return Ok(());
        }
        self.files_left -= 1;
        self.bytes_left -= size;
        let header = FileHeader {
            name,
            size,
            executable,
        };
        send(to, Kind::File, &serde_json::to_vec(&header)?)?;
        let mut left = size;
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let count = (&file).read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::Error::other(
                    "a file became shorter although every process has ended",
                ));
            }
            send(to, Kind::Data, &buffer[..count])?;
            left -= count as u64;
        }
        Ok(())
    }
}

fn hash_of(mut file: &File) -> io::Result<Hash> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}
