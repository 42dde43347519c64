//! Makes the tree that a job finds in its folder: folders, files, links, with their modes and times.
//!
//! Nothing of the job runs yet, and what is made lies on the job's own file system: a path that led elsewhere would lead
//! into a tree that is read-only. The service has checked every path nevertheless.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use kodo_contract::TreePath;
use kodo_sandbox::Limits;
use kodo_sandbox::provider::{EntryHeader, EntryKind, from_json, receive};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, chmodat, fchmod, futimens, linkat, mkdirat,
    openat, symlinkat, utimensat,
};
use sha2::{Digest, Sha256};

use crate::wire::{Fault, Kind};

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;
/// What the content of a file takes room in.
const PAGE: usize = 4096;

/// SHA-256 of a file.
pub(crate) type Hash = [u8; 32];

/// A file as the job was given it.
pub(crate) struct GivenFile {
    pub(crate) size: u64,
    pub(crate) hash: Hash,
    pub(crate) executable: bool,
}

/// The files that the job was given, under all of their names.
pub(crate) type Given = BTreeMap<TreePath, GivenFile>;

/// Receives so many entries and makes them. Returns the files among them.
pub(crate) fn receive_tree(
    control: &mut UnixStream,
    folder: &Path,
    entries: u64,
    limits: &Limits,
) -> Result<Given, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, folder, flags, Mode::empty()).map_err(Fault::at("input-file"))?;
    let mut given = Given::new();
    let (mut folders, mut links, mut mode) = (Vec::new(), Vec::new(), None);
    for _ in 0..entries {
        let (kind, content) = receive::<Kind>(control).map_err(Fault::at("input-file"))?;
        if kind != Kind::Entry {
            return Err(Fault::new("input-file", "another message came first"));
        }
        let entry: EntryHeader = from_json(&content).map_err(Fault::at("input-file"))?;
        if entry.is_root() {
            mode = Some(entry.mode);
            continue;
        }
        let made = make(control, &root, &entry);
        if let Some(file) = made.map_err(|error| unfit(&entry.path, error, limits))? {
            given.insert(entry.path.clone(), file);
        }
        match entry.kind {
            EntryKind::Folder => folders.push(entry),
            EntryKind::HardLink(_) => links.push(entry),
            _ => {}
        }
    }
    // A file may come after its further names.
    for entry in &links {
        let EntryKind::HardLink(to) = &entry.kind else {
            continue;
        };
        let linked = linkat(&root, path(to), &root, path(&entry.path), AtFlags::empty());
        linked.map_err(io::Error::from).map_err(at(&entry.path))?;
        if let Some(file) = given.get(to) {
            let file = GivenFile { ..*file };
            given.insert(entry.path.clone(), file);
        }
    }
    // What is made in a folder changes its time, and may not be made once its mode is set: those deepest first.
    for entry in folders.iter().rev() {
        let place = path(&entry.path);
        chmodat(
            &root,
            place,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )
        .and_then(|()| utimensat(&root, place, &times(entry), AtFlags::empty()))
        .map_err(io::Error::from)
        .map_err(at(&entry.path))?;
    }
    if let Some(mode) = mode {
        fchmod(&root, Mode::from_raw_mode(mode)).map_err(Fault::at("input-file"))?;
    }
    Ok(given)
}

/// Why an entry could not be made.
fn unfit(path: &TreePath, error: io::Error, limits: &Limits) -> Fault {
    if error.kind() != io::ErrorKind::StorageFull {
        return at(path)(error);
    }
    let (bytes, inodes) = (limits.disk_bytes, limits.inodes);
    let reason = format!(
        "what the call finds in its workspace is more than its limits.diskBytes ({bytes}) or limits.inodes ({inodes}) \
         have room for"
    );
    Fault::new("input-file", reason)
}

fn at(path: &TreePath) -> impl Fn(io::Error) -> Fault + '_ {
    move |error| Fault::new("input-file", format_args!("{path}: {error}"))
}

fn path(path: &TreePath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

fn times(entry: &EntryHeader) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.modified.div_euclid(SECOND),
        tv_nsec: entry.modified.rem_euclid(SECOND),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn make(
    control: &mut UnixStream,
    root: &OwnedFd,
    entry: &EntryHeader,
) -> io::Result<Option<GivenFile>> {
    let place = path(&entry.path);
    match &entry.kind {
        EntryKind::Folder => mkdirat(root, place, Mode::RWXU)?,
        EntryKind::Symlink(to) => {
            symlinkat(path(to), root, place)?;
            utimensat(root, place, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        EntryKind::HardLink(_) => {}
        EntryKind::AsGiven => return Err(io::ErrorKind::InvalidData.into()),
        EntryKind::File(size) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = openat(root, place, flags, Mode::RUSR | Mode::WUSR)?;
            let mut file = File::from(fd);
            let hash = receive_content(control, &mut file, *size)?;
            fchmod(&file, Mode::from_raw_mode(entry.mode))?;
            futimens(file.as_fd(), &times(entry))?;
            return Ok(Some(GivenFile {
                size: *size,
                hash,
                executable: entry.mode & 0o100 != 0,
            }));
        }
    }
    Ok(None)
}

/// Writes content at a place of a file in which there are zeros, without the pages that are zeros.
fn write_but_zeros(file: &File, content: &[u8], at: u64) -> io::Result<()> {
    let mut begin = 0;
    for (index, page) in content.chunks(PAGE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            let place = index * PAGE;
            file.write_all_at(&content[begin..place], at + begin as u64)?;
            begin = place + page.len();
        }
    }
    file.write_all_at(&content[begin..], at + begin as u64)
}

fn receive_content(control: &mut UnixStream, file: &mut File, size: u64) -> io::Result<Hash> {
    let mut hash = Sha256::new();
    let mut left = size;
    // What is all zeros, as in a file with holes, takes no room.
    file.set_len(size)?;
    while left > 0 {
        let (kind, content) = receive::<Kind>(control)?;
        if kind != Kind::Data || content.len() as u64 > left {
            return Err(io::ErrorKind::InvalidData.into());
        }
        write_but_zeros(file, &content, size - left)?;
        hash.update(&content);
        left -= content.len() as u64;
    }
    Ok(hash.finalize().into())
}
