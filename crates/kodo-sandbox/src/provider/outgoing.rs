//! Entries of a workspace on their way into a sandbox, in frames: a header, then the content.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};

use kodo_contract::{ContentHash, NodeKind, TreePath};
use sha2::{Digest, Sha256};

use super::entries::{EntryHeader, EntryKind, hash_of};
use super::frames::{CHUNK, FrameKind, frame, json_frame};
use crate::JobSpec;
use crate::workspace::SpoolReader;

/// Where content is that is to be sent.
enum Source {
    None,
    Memory(io::Cursor<Vec<u8>>),
    Spool(SpoolReader, ContentHash),
    File(File),
}

/// What a job finds in its folder, on its way into the sandbox: frames, one after the other, with content that is read
/// when its turn comes.
pub struct OutgoingEntries<K> {
    kind: K,
    data: K,
    waiting: VecDeque<(EntryHeader, Source)>,
    current: Option<Current>,
}

struct Current {
    source: Source,
    left: u64,
    hash: Sha256,
}

impl<K> std::fmt::Debug for OutgoingEntries<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries", self.waiting.len())
    }
}

impl<K: FrameKind> OutgoingEntries<K> {
    /// None.
    pub fn none(kind: K, data: K) -> Self {
        Self {
            kind,
            data,
            waiting: VecDeque::new(),
            current: None,
        }
    }

    /// Those of a job: its workspace with its own files over it.
    ///
    /// # Errors
    /// If the workspace's content is not where it should be.
    pub fn of(spec: &JobSpec, kind: K, data: K) -> io::Result<Self> {
        let mut own: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for file in &spec.files {
            own.insert(file.name.as_bytes(), &file.content);
        }
        let mut all = Self::none(kind, data);
        let given = spec.given();
        let root = given.root().map(EntryHeader::root);
        all.waiting.extend(root.map(|it| (it, Source::None)));
        for (path, node) in given {
            let (kind, source) = match node.kind {
                NodeKind::Folder => (EntryKind::Folder, Source::None),
                NodeKind::Symlink(to) => (EntryKind::Symlink(to), Source::None),
                NodeKind::HardLink(to) => (EntryKind::HardLink(to), Source::None),
                NodeKind::File { sha256, size } => {
                    let source = match (own.get(path.as_bytes()), &spec.workspace) {
                        (Some(content), _) => Source::Memory(io::Cursor::new(content.to_vec())),
                        (None, _) if size == 0 => Source::None,
                        (None, Some(workspace)) => {
                            let content = workspace.content.open(&sha256);
                            let content = content.ok_or_else(|| missing(&path))?;
                            Source::Spool(content, sha256)
                        }
                        (None, None) => return Err(missing(&path)),
                    };
                    (EntryKind::File(size), source)
                }
            };
            let header = EntryHeader {
                path,
                kind,
                mode: node.mode,
                modified: node.modified,
            };
            all.waiting.push_back((header, source));
        }
        Ok(all)
    }

    /// Adds a program of this machine.
    pub fn push_program(&mut self, name: &str, program: File, size: u64) {
        let header = EntryHeader {
            path: name.into(),
            kind: EntryKind::File(size),
            mode: 0o755,
            modified: 0,
        };
        self.waiting.push_back((header, Source::File(program)));
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }

    /// The next frame; `None` after the last one.
    ///
    /// # Errors
    /// Content that cannot be read, or that is not what its hash says. Then the last of it has not been sent.
    pub fn next_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(current) = &mut self.current else {
            let Some((header, source)) = self.waiting.pop_front() else {
                return Ok(None);
            };
            if let EntryKind::File(left @ 1..) = header.kind {
                self.current = Some(Current {
                    source,
                    left,
                    hash: Sha256::new(),
                });
            }
            return json_frame(self.kind, &header).map(Some);
        };
        let most = CHUNK.min(usize::try_from(current.left).unwrap_or(CHUNK));
        let mut piece = vec![0; most];
        match &mut current.source {
            Source::None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Source::Memory(content) => content.read_exact(&mut piece)?,
            Source::Spool(content, _) => content.read_exact(&mut piece)?,
            Source::File(content) => content.read_exact(&mut piece)?,
        }
        current.left -= most as u64;
        if let Source::Spool(_, expected) = &current.source {
            current.hash.update(&piece);
            if current.left == 0 && hash_of(&current.hash) != *expected {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a file of the workspace is not what its hash says",
                ));
            }
        }
        if current.left == 0 {
            self.current = None;
        }
        Ok(Some(frame(self.data, &piece)))
    }
}

fn missing(path: &TreePath) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("the content of {path} is not in the spool"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use kodo_contract::{Node, Tree};

    use super::*;
    use crate::provider::received::tests::with_workspace;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(u8)]
    enum Kind {
        File = b'F',
        Data = b'D',
    }

    impl FrameKind for Kind {
        const ALL: &'static [Self] = &[Self::File, Self::Data];

        fn byte(self) -> u8 {
            self as u8
        }
    }

    #[test]
    fn content_that_is_not_what_its_hash_says_is_never_sent_whole() {
        let kind = |content: &[u8]| NodeKind::File {
            sha256: ContentHash::of(content),
            size: content.len() as u64,
        };
        let tree: Tree = [("a".into(), Node::new(kind(b"good"), 0o644, 0))]
            .into_iter()
            .collect();
        let (_folder, job) = with_workspace(tree);
        let content = Arc::clone(&job.workspace.as_ref().unwrap().content);
        assert!(
            OutgoingEntries::of(&job, Kind::File, Kind::Data).is_err(),
            "not there"
        );
        let at = content.reserve(4);
        content.file().write_all_at(b"evil", at).unwrap();
        content.add(ContentHash::of(b"good"), at..at + 4);
        let mut entries = OutgoingEntries::of(&job, Kind::File, Kind::Data).unwrap();
        assert_eq!(entries.len(), 1);
        assert!(entries.next_frame().unwrap().is_some());
        assert!(entries.next_frame().is_err());
        content.file().write_all_at(b"good", at).unwrap();
        let mut entries = OutgoingEntries::of(&job, Kind::File, Kind::Data).unwrap();
        entries.next_frame().unwrap();
        assert!(entries.next_frame().unwrap().unwrap().ends_with(b"good"));
        assert_eq!(entries.next_frame().unwrap(), None);
        assert!(entries.is_empty());
    }
}
