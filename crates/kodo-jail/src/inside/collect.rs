//! Sends what a job left in its folder: no link followed, number and size limited.
//!
//! Every process of the job has ended by now, so nothing changes meanwhile.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kodo_contract::{MAX_TREE_NAMES, TreeBounds, TreeFault, TreePath};
use kodo_sandbox::provider::{CHUNK, EntryHeader, EntryKind, send};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, chmodat, openat, readlinkat, statat};
use sha2::{Digest, Sha256};

use super::restore::{Given, Hash};
#[cfg(feature = "weaken")]
use crate::defence::{Defence, on};
use crate::wire::{Kind, Spec};

/// The greatest depth of folders that is searched for the files of a job without a workspace.
const MAX_DEPTH: usize = 64;
/// The most entries in the list of what is not handed back.
const MAX_SKIPPED: usize = 256;
/// The most characters of a name in that list.
const MAX_NAME: usize = 1024;

/// What was not handed back.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) skipped: Vec<(String, String)>,
    /// There were more or larger files than are handed back.
    pub(crate) full: bool,
    /// The limit of a workspace that was exceeded.
    pub(crate) not_carried: Option<String>,
}

/// Sends what is below a folder: of a job with a workspace every entry, of another one every regular file that is not as it
/// was given.
pub(crate) fn send_tree(
    folder: &Path,
    given: &Given,
    spec: &Spec,
    to: &mut impl Write,
) -> io::Result<Collected> {
    let mut walk = Walk {
        given,
        carried: spec.carried,
        files_left: spec.limits.returned_files,
        bytes_left: spec
            .carried
            .map_or(spec.limits.returned_bytes, |it| it.bytes),
        entries: 0,
        name_bytes: 0,
        names: HashMap::new(),
        collected: Collected::default(),
    };
    if spec.carried.is_some() {
        let mode = statat(CWD, folder, AtFlags::empty())?.st_mode & 0o7777;
        if mode & 0o500 != 0o500 {
            chmodat(
                CWD,
                folder,
                Mode::from_raw_mode(mode | 0o500),
                AtFlags::empty(),
            )?;
        }
        announce(to, &EntryHeader::root(mode))?;
    }
    let root = open(CWD, folder, OFlags::DIRECTORY)?;
    walk.folder(root, &[], 1, to)?;
    Ok(walk.collected)
}

/// Opens without following a link, and without waiting for the other end of a fifo.
fn open(at: impl std::os::fd::AsFd, name: &Path, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    #[cfg(feature = "weaken")]
    let flags = if on(Defence::NoFollow) {
        flags
    } else {
        flags.difference(OFlags::NOFOLLOW)
    };
    Ok(openat(at, name, flags, Mode::empty())?)
}

fn stat(folder: &OwnedFd, name: &Path) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    #[cfg(feature = "weaken")]
    let flags = if on(Defence::NoFollow) {
        flags
    } else {
        AtFlags::empty()
    };
    Ok(statat(folder, name, flags)?)
}

struct Walk<'a> {
    given: &'a Given,
    carried: Option<TreeBounds>,
    files_left: u64,
    bytes_left: u64,
    entries: u64,
    /// Bytes of the paths and link targets of those.
    name_bytes: u64,
    /// The first names of files that have several, by their inodes.
    names: HashMap<u64, TreePath>,
    collected: Collected,
}

impl Walk<'_> {
    fn skip(&mut self, path: &TreePath, kind: &str) {
        let mut name = path.text();
        let most = name.char_indices().nth(MAX_NAME).map(|(at, _)| at);
        name.truncate(most.unwrap_or(name.len()));
        if self.collected.skipped.len() < MAX_SKIPPED {
            self.collected.skipped.push((name, kind.to_owned()));
        }
    }

    fn is_over(&self) -> bool {
        self.collected.full || self.collected.not_carried.is_some()
    }

    /// Counts the bytes of a path and its target. Returns whether they are within the limit.
    fn count_names(&mut self, bytes: usize) -> bool {
        self.name_bytes += bytes as u64;
        if self.name_bytes > MAX_TREE_NAMES {
            self.too_much(&TreeFault::Names);
        }
        self.name_bytes <= MAX_TREE_NAMES
    }

    /// Notes the limit that the tree exceeds.
    fn too_much(&mut self, fault: &TreeFault) {
        self.collected.not_carried = Some(fault.to_string());
    }

    fn folder(
        &mut self,
        folder: OwnedFd,
        prefix: &[u8],
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
            if self.is_over() {
                return Ok(());
            }
            let path = TreePath::new([prefix, &name].concat());
            let name = Path::new(OsStr::from_bytes(&name));
            match self.carried {
                Some(bounds) => self.carry(&folder, name, path, &bounds, depth, to)?,
                None => self.entry(&folder, name, path, depth, to)?,
            }
        }
        Ok(())
    }

    /// Sends an entry with all that it has.
    fn carry(
        &mut self,
        folder: &OwnedFd,
        name: &Path,
        path: TreePath,
        bounds: &TreeBounds,
        depth: usize,
        to: &mut impl Write,
    ) -> io::Result<()> {
        if let Err(fault) = path.check() {
            self.too_much(&fault);
            return Ok(());
        }
        let stat = stat(folder, name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if let Some(word) = special(kind) {
            self.skip(&path, word);
            return Ok(());
        }
        if self.entries == bounds.entries {
            self.too_much(&TreeFault::Entries {
                most: bounds.entries,
            });
            return Ok(());
        }
        self.entries += 1;
        if !self.count_names(path.as_bytes().len()) {
            return Ok(());
        }
        let mode = stat.st_mode & 0o7777;
        let modified = nanoseconds(&stat);
        if modified == i64::MAX || modified == i64::MIN {
            self.skip(&path, "time");
        }
        let header = |kind| EntryHeader {
            path: path.clone(),
            kind,
            mode,
            modified,
        };
        // The owner may have taken rights from itself; the tree is gone after this.
        let wanted = if kind == FileType::Directory {
            0o500
        } else {
            0o400
        };
        if kind != FileType::Symlink && mode & wanted != wanted {
            chmodat(
                folder,
                name,
                Mode::from_raw_mode(mode | wanted),
                AtFlags::empty(),
            )?;
        }
        match kind {
            FileType::Symlink => {
                let target = TreePath::new(readlinkat(folder, name, Vec::new())?.into_bytes());
                if !self.count_names(target.as_bytes().len()) {
                    return Ok(());
                }
                announce(to, &header(EntryKind::Symlink(target)))
            }
            FileType::Directory => {
                announce(to, &header(EntryKind::Folder))?;
                let below = open(folder, name, OFlags::DIRECTORY)?;
                let prefix = [path.as_bytes(), b"/"].concat();
                self.folder(below, &prefix, depth + 1, to)
            }
            _ => {
                if stat.st_nlink > 1 {
                    if let Some(first) = self.names.get(&stat.st_ino).cloned() {
                        if !self.count_names(first.as_bytes().len()) {
                            return Ok(());
                        }
                        return announce(to, &header(EntryKind::HardLink(first)));
                    }
                    self.names.insert(stat.st_ino, path.clone());
                }
                let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
                let Some(left) = self.bytes_left.checked_sub(size) else {
                    self.too_much(&TreeFault::Bytes { most: bounds.bytes });
                    return Ok(());
                };
                self.bytes_left = left;
                let file = File::from(open(folder, name, OFlags::empty())?);
                if self.is_as_given(&path, size, &file) {
                    return announce(to, &header(EntryKind::AsGiven));
                }
                announce(to, &header(EntryKind::File(size)))?;
                send_content(&file, size, to)
            }
        }
    }

    fn is_as_given(&self, path: &TreePath, size: u64, file: &File) -> bool {
        self.given.get(path).is_some_and(|given| {
            given.size == size && hash_of(file).is_ok_and(|hash| hash == given.hash)
        })
    }

    /// Sends an entry of a job without a workspace, if it is a file that is not as it was given.
    fn entry(
        &mut self,
        folder: &OwnedFd,
        name: &Path,
        path: TreePath,
        depth: usize,
        to: &mut impl Write,
    ) -> io::Result<()> {
        if std::str::from_utf8(path.as_bytes()).is_err() {
            self.skip(&path, "name");
            return Ok(());
        }
        let stat = stat(folder, name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if let Some(word) = special(kind) {
            self.skip(&path, word);
            return Ok(());
        }
        if kind == FileType::Symlink {
            self.skip(&path, "symlink");
            return Ok(());
        }
        let Ok(opened) = open(folder, name, OFlags::empty()) else {
            self.skip(&path, "unreadable");
            return Ok(());
        };
        if kind == FileType::Directory {
            if depth == MAX_DEPTH {
                self.skip(&path, "depth");
                return Ok(());
            }
            let prefix = [path.as_bytes(), b"/"].concat();
            return self.folder(opened, &prefix, depth + 1, to);
        }
        let file = File::from(opened);
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let executable = stat.st_mode & 0o100 != 0;
        let same_mode = self
            .given
            .get(&path)
            .is_some_and(|it| it.executable == executable);
        if same_mode && self.is_as_given(&path, size, &file) {
            return Ok(());
        }
        if self.files_left == 0 || size > self.bytes_left {
            self.collected.full = true;
            return Ok(());
        }
        self.files_left -= 1;
        self.bytes_left -= size;
        let header = EntryHeader {
            path,
            kind: EntryKind::File(size),
            mode: stat.st_mode & 0o7777,
            modified: nanoseconds(&stat),
        };
        announce(to, &header)?;
        send_content(&file, size, to)
    }
}

/// The word for what is never handed back.
fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory | FileType::Symlink => None,
        FileType::Fifo => Some("fifo"),
        FileType::Socket => Some("socket"),
        _ => Some("device"),
    }
}

/// When an entry was modified, in nanoseconds since 1970, as far as that can be said in 64 bits.
fn nanoseconds(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(fraction(i64::try_from(stat.st_mtime_nsec).unwrap_or(0)))
}

/// The nanoseconds of a time. gVisor says -1.5 s as -1 s and -500,000,000 ns, of which it returns the 32 bits unsigned.
fn fraction(nanoseconds: i64) -> i64 {
    match nanoseconds {
        0..1_000_000_000 => nanoseconds,
        other => i64::from(other as i32),
    }
}

fn announce(to: &mut impl Write, header: &EntryHeader) -> io::Result<()> {
    send(to, Kind::Entry, &serde_json::to_vec(header)?)
}

fn send_content(mut file: &File, size: u64, to: &mut impl Write) -> io::Result<()> {
    file.rewind()?;
    let mut left = size;
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let most = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let count = file.read(&mut buffer[..most])?;
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

fn hash_of(mut file: &File) -> io::Result<Hash> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_read_as_gvisor_says_it_too() {
        assert_eq!(fraction(999_999_999), 999_999_999);
        assert_eq!(fraction(3_794_967_296), -500_000_000);
        assert_eq!(fraction(4_294_967_295), -1);
    }
}
