//! Unpacks an uploaded archive into a tree: tar, as it is or compressed by gzip.
//!
//! The archive comes from outside. A path that leads out of the tree, a device, a fifo and what is larger than it looks are
//! refused by name, never left out in silence. A symbolic link is taken with any target and never followed: nothing is written
//! to a file system here, and what would be below a link is refused.

mod extended;
mod readers;

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use kodo_contract::{
    ContentHash, MAX_TREE_NAMES, Node, NodeKind, Tree, TreeBounds, TreeFault, TreePath,
};
use tar::{Archive, EntryType};

use extended::{Extended, extend};
use readers::{Limited, content};

/// How a file that is compressed by gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// What an archive may take for each entry besides its content: headers with a name and a link target of 4095 bytes each.
const OVERHEAD: u64 = 16 * 1024;
/// The most headers of an entry: its own, and those with its name, its link target and its attributes.
const MAX_HEADERS: u64 = 4;
/// Mode bits that change a user or a group.
const SET_ID: u32 = 0o6000;

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is none, or ends in its middle.
    #[error("it is neither a tar archive nor one that gzip has compressed: {0}")]
    NoArchive(io::Error),
    /// It has something that is not taken.
    #[error("its entry {path} {reason}")]
    Entry {
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What it holds is no tree that can be carried.
    #[error(transparent)]
    Tree(#[from] TreeFault),
    /// It has more than what can be carried could take.
    #[error(
        "its archive has more than {most} {what}, the most that is read for a workspace within SBX_WORKSPACE_ENTRIES and \
         SBX_WORKSPACE_MIB"
    )]
    TooLong {
        /// The limit.
        most: u64,
        /// What is counted.
        what: &'static str,
    },
    /// Its content could not be kept. The fault is this machine's.
    #[error("its content cannot be kept: {0}")]
    Kept(io::Error),
}

/// Unpacks an archive. `keep` takes content of a known length and returns its hash; `modified` is the time of folders that the
/// archive does not name.
///
/// # Errors
/// [`UnpackError`]. What was kept until then is of no use.
pub fn unpack(
    archive: impl Read,
    bounds: &TreeBounds,
    modified: i64,
    keep: impl FnMut(&mut dyn Read, u64) -> io::Result<ContentHash>,
) -> Result<Tree, UnpackError> {
    // One entry more: the top of the archive is none of the tree.
    let headers = bounds.entries.saturating_add(1);
    let most = bounds
        .bytes
        .saturating_add(headers.saturating_mul(OVERHEAD));
    let left = Cell::new(Some(most));
    let tree = unpack_within(archive, bounds, &left, modified, keep);
    // The library wraps errors of what it reads from.
    if left.get().is_none() {
        let what = "bytes";
        return Err(UnpackError::TooLong { most, what });
    }
    tree
}

/// The same, with how many bytes may be read yet once they are not compressed any more; `None` when there were more.
fn unpack_within(
    archive: impl Read,
    bounds: &TreeBounds,
    left: &Cell<Option<u64>>,
    modified: i64,
    mut keep: impl FnMut(&mut dyn Read, u64) -> io::Result<ContentHash>,
) -> Result<Tree, UnpackError> {
    let mut archive = BufReader::new(archive);
    let begins = archive.fill_buf().map_err(UnpackError::NoArchive)?;
    let reader: Box<dyn Read> = if begins.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(archive))
    } else {
        Box::new(archive)
    };
    let mut archive = Archive::new(Limited { from: reader, left });
    let mut tree = Tree::default();
    let mut extended = Extended::default();
    let (mut bytes, mut seen, mut names, mut headers) = (0_u64, 0_u64, 0_u64, 0_u64);
    let most_headers = bounds.entries.saturating_add(1).saturating_mul(MAX_HEADERS);
    // Raw: the library would read names of any length into memory.
    for entry in archive.entries().map_err(UnpackError::NoArchive)?.raw(true) {
        let mut entry = entry.map_err(UnpackError::NoArchive)?;
        headers += 1;
        if headers > most_headers {
            let (most, what) = (most_headers, "headers");
            return Err(UnpackError::TooLong { most, what });
        }
        let kind = entry.header().entry_type();
        if extend(&mut extended, kind, &mut entry)? {
            continue;
        }
        let Extended {
            path,
            link,
            modified: younger,
            size: larger,
            sparse,
        } = std::mem::take(&mut extended);
        // Of whatever it is the size of: the library reads that much to get to the next one.
        let size = entry
            .header()
            .entry_size()
            .map_err(UnpackError::NoArchive)?;
        bytes = bytes.saturating_add(size);
        if bytes > bounds.bytes {
            return Err(TreeFault::Bytes { most: bounds.bytes }.into());
        }
        let path = path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let Some(path) = tree_path(&path) else {
            if kind == EntryType::Directory {
                tree.set_root(entry.header().mode().map_err(UnpackError::NoArchive)?);
            }
            continue;
        };
        let refused = |reason| UnpackError::Entry {
            path: path.clone(),
            reason,
        };
        path.check()?;
        // Entries of one name count, too: each costs the reading of it.
        seen += 1;
        if seen > bounds.entries {
            return Err(TreeFault::Entries {
                most: bounds.entries,
            }
            .into());
        }
        let header = entry.header();
        let mode = header.mode().map_err(UnpackError::NoArchive)?;
        let seconds = header.mtime().map_err(UnpackError::NoArchive)?;
        let time = i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000_000);
        if sparse || kind.is_gnu_sparse() {
            return Err(refused(
                "is a sparse file: make the archive without --sparse",
            ));
        }
        if larger.is_some_and(|larger| larger != size) {
            return Err(refused("has two sizes"));
        }
        if mode & SET_ID != 0 {
            return Err(refused("has a set-user-id or set-group-id bit"));
        }
        let link = || link.or_else(|| entry.link_name_bytes().map(|it| it.into_owned()));
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous => NodeKind::File {
                sha256: content(&mut entry, size, &mut keep)?,
                size,
            },
            EntryType::Directory => NodeKind::Folder,
            EntryType::Symlink => NodeKind::Symlink(TreePath::new(link().unwrap_or_default())),
            EntryType::Link => {
                let to = link().as_deref().and_then(tree_path);
                let to = to.ok_or_else(|| refused("is a hard link to nothing"))?;
                to.check()?;
                match tree.get(&to).map(|node| &node.kind) {
                    Some(NodeKind::File { .. }) if to != path => NodeKind::HardLink(to),
                    Some(NodeKind::HardLink(first)) if *first != path => {
                        NodeKind::HardLink(first.clone())
                    }
                    _ => return Err(refused("is a hard link to no file before it")),
                }
            }
            EntryType::Fifo => return Err(refused("is a fifo")),
            EntryType::Char | EntryType::Block => return Err(refused("is a device")),
            _ => return Err(refused("is of a kind that is not taken")),
        };
        // The folders that are made for it, the nearest first; a folder that is there stands in folders.
        let mut made = 0;
        for folder in std::iter::successors(path.parent(), TreePath::parent) {
            match tree.get(&folder) {
                Some(it) if it.is_folder() => break,
                Some(_) => return Err(refused("is in something that is no folder")),
                None => {
                    made += 1;
                    names += folder.as_bytes().len() as u64;
                }
            }
        }
        let time = younger.unwrap_or(time);
        let node = Node::new(kind, mode, if made > 0 { modified } else { time });
        names += node.name_bytes(&path);
        let new = made + u64::from(tree.get(&path).is_none());
        if tree.len() as u64 + new > bounds.entries {
            return Err(TreeFault::Entries {
                most: bounds.entries,
            }
            .into());
        }
        if names > MAX_TREE_NAMES {
            return Err(TreeFault::Names.into());
        }
        tree.put(path.clone(), node.clone());
        // Folders that were made above have the time of now; the entry has its own.
        tree.insert(
            path,
            Node {
                modified: time,
                ..node
            },
        );
    }
    tree.check(bounds)?;
    Ok(tree)
}

/// The path of an entry without `./` before it and `/` behind it; `None` for the archive's top itself.
fn tree_path(mut path: &[u8]) -> Option<TreePath> {
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/").filter(|rest| !rest.is_empty()) {
        path = rest;
    }
    (!path.is_empty() && path != b".").then(|| TreePath::new(path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::extended::MAX_EXTENSION;
    use super::*;

    fn header(kind: EntryType, path: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(7);
        header.set_size(size);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path);
        header
    }

    fn archive(entries: &[(EntryType, &str, &str, u32)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, path, content, mode) in entries {
            let is_file = matches!(kind, EntryType::Regular | EntryType::GNUSparse);
            let size = if is_file { content.len() as u64 } else { 0 };
            let mut header = header(*kind, path.as_bytes(), size);
            header.set_mode(*mode);
            if !is_file {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            builder
                .append(&header, if is_file { content.as_bytes() } else { b"" })
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(archive: &[u8]) -> Result<Tree, UnpackError> {
        let bounds = TreeBounds {
            entries: 8,
            bytes: 100,
        };
        unpack(archive, &bounds, 42, |content, size| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            assert_eq!(bytes.len() as u64, size);
            Ok(ContentHash::of(&bytes))
        })
    }

    use EntryType::{Block, Char, Directory, Fifo, GNUSparse, Link, Regular, Symlink};

    #[test]
    fn an_archive_is_a_tree_compressed_or_not() {
        let plain = archive(&[
            (Directory, "./", "", 0o2750),
            (Directory, "d/", "", 0o700),
            (Regular, "./d/f", "content", 0o755),
            (Link, "d/g", "./d/f", 0o755),
            (Symlink, "d/l", "../d/f", 0o777),
            (Regular, "made/by/the way", "x", 0o644),
        ]);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&plain).unwrap();
        for bytes in [plain.clone(), gzip.finish().unwrap()] {
            let tree = unpacked(&bytes).unwrap();
            assert_eq!(tree.root(), Some(0o750));
            let names: Vec<String> = tree.iter().map(|(path, _)| path.text()).collect();
            assert_eq!(
                names,
                [
                    "d",
                    "d/f",
                    "d/g",
                    "d/l",
                    "made",
                    "made/by",
                    "made/by/the way"
                ]
            );
            let node = |path: &str| tree.get(&path.into()).unwrap().clone();
            assert_eq!((node("d").mode, node("d").modified), (0o700, 7_000_000_000));
            assert_eq!(node("d/g").kind, NodeKind::HardLink("d/f".into()));
            assert_eq!(node("d/l").kind, NodeKind::Symlink("../d/f".into()));
            assert_eq!(node("made/by").modified, 42);
            assert_eq!(node("made/by/the way").modified, 7_000_000_000);
        }
        let nothing = unpacked(&archive(&[])).unwrap();
        assert!(nothing.is_empty() && nothing.root().is_none());
    }

    /// A job can make each of these, so that a downloaded workspace has them.
    #[test]
    fn a_symbolic_link_has_any_target_and_is_never_followed() {
        let top = "../".repeat(30) + "etc";
        for target in ["/etc", "/etc/passwd", "../../etc", &top, "..", ".", "l"] {
            let link = (Symlink, "l", target, 0o777);
            let tree = unpacked(&archive(&[link])).unwrap();
            let kind = NodeKind::Symlink(target.into());
            assert_eq!(tree.get(&"l".into()).unwrap().kind, kind);
            // Below it nothing is written, whatever it is and wherever it leads.
            for (kind, content) in [(Regular, "x"), (Directory, ""), (Symlink, "x")] {
                for below in ["l/x", "l/x/y", "./l//x", "l/./x"] {
                    let folder = (Directory, "d", "", 0o755);
                    let entries = [folder, link, (kind, below, content, 0o644)];
                    let error = unpacked(&archive(&entries)).unwrap_err().to_string();
                    let said = ["no folder", "`.` or `..`", "empty"];
                    assert!(said.iter().any(|it| error.contains(it)), "{below}: {error}");
                }
            }
            // It gives way to a file of its name, and no further name of a file leads through it.
            let over = [link, (Regular, "l", "own", 0o644)];
            let tree = unpacked(&archive(&over)).unwrap();
            assert_eq!(tree.get(&"l".into()).unwrap().content().unwrap().1, 3);
            for to in ["l", "l/passwd"] {
                let error = unpacked(&archive(&[link, (Link, "h", to, 0o644)])).unwrap_err();
                assert!(error.to_string().contains("no file before it"), "{error}");
            }
        }
        let error = unpacked(&archive(&[(Symlink, "l", "", 0o777)])).unwrap_err();
        assert!(error.to_string().contains("target"), "{error}");
    }

    #[test]
    fn a_path_that_leads_out_and_what_is_no_file_are_refused_by_name() {
        for (entries, said) in [
            (vec![(Regular, "../x", "", 0o644)], "`.` or `..`"),
            (vec![(Regular, "a/../../x", "", 0o644)], "`.` or `..`"),
            (vec![(Regular, "/etc/x", "", 0o644)], "absolute"),
            (vec![(Link, "l", "/etc/passwd", 0o644)], "absolute"),
            (vec![(Link, "l", "nothing", 0o644)], "no file before it"),
            (vec![(Char, "null", "", 0o666)], "a device"),
            (vec![(Block, "sda", "", 0o666)], "a device"),
            (vec![(Fifo, "fifo", "", 0o644)], "a fifo"),
            (vec![(Regular, "su", "x", 0o4755)], "set-user-id"),
            (vec![(Directory, "d", "", 0o2755)], "set-group-id"),
            (vec![(GNUSparse, "holes", "", 0o644)], "sparse"),
        ] {
            let error = unpacked(&archive(&entries)).unwrap_err().to_string();
            assert!(error.contains(said), "{entries:?}: {error}");
        }
    }

    #[test]
    fn what_is_larger_than_is_carried_is_refused_before_it_is_read() {
        let said = |bytes: &[u8]| unpacked(bytes).unwrap_err().to_string();
        let many: Vec<_> = (0..9).map(|_| (Regular, "same", "", 0o644)).collect();
        assert!(said(&archive(&many)).contains("more than 8 entries"));
        let mut claims = header(Regular, b"large", 1 << 40);
        claims.set_cksum();
        assert!(said(claims.as_bytes()).contains("more than 100 bytes"));
        // Its name alone, by the library's own extension.
        let mut name = header(EntryType::GNULongName, b"././@LongLink", 1 << 30);
        name.set_cksum();
        let mut long = name.as_bytes().to_vec();
        long.resize(1 << 20, b'a');
        assert!(said(&long).contains("64 KiB"));
    }

    #[test]
    fn folders_that_the_archive_does_not_name_count_before_they_are_made() {
        let said = |path: &str| unpacked(&archive(&[(Regular, path, "", 0o644)]));
        assert_eq!(said("1/2/3/4/5/6/7/f").unwrap().len(), 8);
        let error = said("1/2/3/4/5/6/7/8/f").unwrap_err().to_string();
        assert!(error.contains("more than 8 entries"), "{error}");
    }

    #[test]
    fn what_leaves_no_entry_behind_is_bounded_too() {
        let said = |bytes: &[u8]| unpacked(bytes).unwrap_err().to_string();
        let tops: Vec<_> = (0..37).map(|_| (Directory, "./", "", 0o755)).collect();
        assert!(unpacked(&archive(&tops[1..])).unwrap().is_empty());
        assert!(said(&archive(&tops)).contains("more than 36 headers"));
        for kind in [Directory, Symlink, Regular] {
            let mut padded = header(kind, b"./", 101);
            padded.set_cksum();
            let error = said(padded.as_bytes());
            assert!(error.contains("more than 100 bytes"), "{error}");
        }
        // Attributes of the whole archive, which are read and forgotten.
        let mut builder = Builder::new(Vec::new());
        for _ in 0..3 {
            let size = MAX_EXTENSION;
            let mut attributes = header(EntryType::XGlobalHeader, b"pax", size);
            attributes.set_cksum();
            builder
                .append(&attributes, io::repeat(b'x').take(size))
                .unwrap();
        }
        let error = said(&builder.into_inner().unwrap());
        assert!(error.contains("more than 147556 bytes"), "{error}");
        assert!(error.contains("SBX_WORKSPACE_MIB"), "{error}");
    }

    #[test]
    fn what_is_no_archive_or_ends_early_is_told() {
        let whole = archive(&[(Regular, "f", &"x".repeat(90), 0o644)]);
        for bad in [
            &b"PK\x03\x04 and more of a zip"[..],
            &[b'x'; 2000],
            &[0x1f, 0x8b, 1, 2],
            &whole[..540],
        ] {
            let error = unpacked(bad).unwrap_err();
            assert!(matches!(error, UnpackError::NoArchive(_)), "{error}");
        }
    }
}
