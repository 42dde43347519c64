//! Entries of a workspace that come out of a sandbox, checked before anything of them is kept.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kodo_contract::{MAX_TREE_NAMES, Node, NodeKind, Tree, TreeBounds, TreePath};
use sha2::{Digest, Sha256};

use super::entries::{EntryHeader, EntryKind, hash_of};
use crate::workspace::Spool;
use crate::{JobSpec, Limits, OutputFile};

/// What a process inside a sandbox sends of the job's folder. It handles what a job left, so paths, numbers and sizes are
/// checked against the job's limits before anything is kept.
#[derive(Debug, Default)]
pub struct ReceivedEntries {
    given: Tree,
    /// Files of the job that are not handed back as long as they are as they were given.
    withheld: Vec<TreePath>,
    /// Where content goes, and how much; without it, content stays in memory.
    spool: Option<(Arc<Spool>, TreeBounds)>,
    tree: Tree,
    files: Vec<OutputFile>,
    new_bytes: u64,
    /// Bytes of paths and link targets.
    names: u64,
    current: Option<Arriving>,
    any: bool,
}

#[derive(Debug)]
struct Arriving {
    header: EntryHeader,
    size: u64,
    held: u64,
    at: u64,
    content: Vec<u8>,
    hash: Sha256,
}

impl ReceivedEntries {
    /// For the result of this job.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        let withheld = spec.files.iter().filter(|file| file.secret);
        Self {
            given: spec.given(),
            withheld: withheld.map(|file| file.name.as_str().into()).collect(),
            spool: spec
                .workspace
                .as_ref()
                .map(|it| (Arc::clone(&it.content), it.bounds)),
            ..Self::default()
        }
    }

    /// Whether all of the last file has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.current.is_none()
    }

    /// Whether nothing has been announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any
    }

    /// Begins the next entry.
    ///
    /// # Errors
    /// If the one before it is incomplete, its path leads out of the job's folder, it exceeds a limit, or it claims what
    /// cannot be.
    pub fn begin(&mut self, header: EntryHeader, limits: &Limits) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        self.any = true;
        if header.is_root() && self.is_complete() && self.spool.is_some() {
            self.tree.set_root(header.mode);
            return Ok(());
        }
        if !self.is_complete() || header.path.check().is_err() {
            return Err(invalid());
        }
        let kind = match &header.kind {
            EntryKind::File(size) => {
                self.new_bytes = self.new_bytes.saturating_add(*size);
                let (most_bytes, most_files) = match &self.spool {
                    Some((_, bounds)) => (bounds.bytes, bounds.entries),
                    None => (limits.returned_bytes, limits.returned_files),
                };
                let many = (self.tree.len().max(self.files.len())) as u64;
                if self.new_bytes > most_bytes || many >= most_files {
                    return Err(invalid());
                }
                let spool = self.spool.as_ref();
                self.current = Some(Arriving {
                    size: *size,
                    held: 0,
                    at: spool.map_or(0, |(spool, _)| spool.reserve(*size)),
                    content: Vec::new(),
                    hash: Sha256::new(),
                    header,
                });
                return self.finish_if_complete();
            }
            EntryKind::AsGiven => {
                let mut given = self.given.get(&header.path);
                // The job's folder is read in another order than what was given has: the first name of a file may have been a
                // further one there.
                if let Some(NodeKind::HardLink(to)) = given.map(|it| &it.kind) {
                    given = self.given.get(to);
                }
                let given = given.filter(|it| it.content().is_some());
                given.ok_or_else(invalid)?.kind.clone()
            }
            EntryKind::Folder => NodeKind::Folder,
            EntryKind::Symlink(to) => NodeKind::Symlink(to.clone()),
            EntryKind::HardLink(to) => NodeKind::HardLink(to.clone()),
        };
        self.keep(&header, kind)
    }

    /// Adds content to the last file.
    ///
    /// # Errors
    /// If there is no file, or it would become larger than announced, or the disk is full.
    pub fn append(&mut self, content: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if current.held + content.len() as u64 > current.size {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match &self.spool {
            Some((spool, _)) => spool
                .file()
                .write_all_at(content, current.at + current.held)?,
            None => current.content.extend_from_slice(content),
        }
        current.hash.update(content);
        current.held += content.len() as u64;
        self.finish_if_complete()
    }

    fn finish_if_complete(&mut self) -> io::Result<()> {
        let Some(Arriving {
            header,
            size,
            at,
            content,
            hash,
            ..
        }) = self.current.take_if(|it| it.held == it.size)
        else {
            return Ok(());
        };
        let sha256 = hash_of(&hash);
        match &self.spool {
            Some((spool, _)) => {
                spool.add(sha256.clone(), at..at + size);
                self.keep(&header, NodeKind::File { sha256, size })
            }
            None => {
                self.files.push(OutputFile {
                    name: header.path.text(),
                    content,
                    sha256: sha256.into_string(),
                    executable: header.mode & 0o100 != 0,
                });
                Ok(())
            }
        }
    }

    fn keep(&mut self, header: &EntryHeader, kind: NodeKind) -> io::Result<()> {
        let Some((_, bounds)) = &self.spool else {
            // Of a job without a workspace only files come back.
            return Err(io::ErrorKind::InvalidData.into());
        };
        if self.tree.len() as u64 >= bounds.entries {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let as_given = header.kind == EntryKind::AsGiven;
        let is_withheld = |path: &TreePath| self.withheld.contains(path);
        let stays = match &kind {
            NodeKind::HardLink(to) => is_withheld(to) && self.tree.get(to).is_none(),
            _ => as_given && is_withheld(&header.path),
        };
        if !stays {
            let node = Node::new(kind, header.mode, header.modified);
            self.names += node.name_bytes(&header.path);
            if self.names > MAX_TREE_NAMES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.tree.insert(header.path.clone(), node).is_some() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    /// The files of a job without a workspace, in the order in which they came.
    #[must_use]
    pub fn into_files(self) -> Vec<OutputFile> {
        self.files
    }

    /// The tree of a job with a workspace, or why it is none that can be carried; `None` for a job without.
    #[must_use]
    pub fn tree(&mut self) -> Option<Result<Tree, String>> {
        let (_, bounds) = self.spool.as_ref()?;
        let tree = std::mem::take(&mut self.tree);
        Some(match tree.check(bounds) {
            Ok(()) => Ok(tree),
            Err(fault) => Err(fault.to_string()),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use kodo_contract::ContentHash;

    use super::*;
    use crate::Workspace;

    fn header(path: &str, kind: EntryKind) -> EntryHeader {
        EntryHeader {
            path: path.into(),
            kind,
            mode: 0o644,
            modified: 1,
        }
    }

    fn file(path: &str, size: u64) -> EntryHeader {
        header(path, EntryKind::File(size))
    }

    fn job() -> JobSpec {
        let mut job = JobSpec::new(["true"]);
        job.limits.returned_files = 2;
        job.limits.returned_bytes = 10;
        job
    }

    pub(in crate::provider) fn with_workspace(tree: Tree) -> (tempfile::TempDir, JobSpec) {
        let folder = tempfile::tempdir().unwrap();
        let mut job = job();
        job.workspace = Some(Workspace {
            tree,
            content: Arc::new(Spool::in_folder(folder.path()).unwrap()),
            bounds: TreeBounds {
                entries: 4,
                bytes: 10,
            },
        });
        (folder, job)
    }

    #[test]
    fn files_are_received_within_the_limits_and_the_announced_sizes() {
        let job = job();
        let limits = job.limits;
        for bad in ["../x", "/x", "", "a/../../b"] {
            let begun = ReceivedEntries::of(&job).begin(file(bad, 1), &limits);
            assert!(begun.is_err(), "{bad:?}");
        }
        assert!(ReceivedEntries::of(&job).append(b"x").is_err());
        assert!(
            ReceivedEntries::of(&job)
                .begin(file("x", 11), &limits)
                .is_err()
        );
        let folder = header("d", EntryKind::Folder);
        assert!(
            ReceivedEntries::of(&job).begin(folder, &limits).is_err(),
            "not asked for"
        );
        let mut files = ReceivedEntries::of(&job);
        files.begin(file("a/b", 3), &limits).unwrap();
        files.append(b"ab").unwrap();
        assert!(!files.is_complete());
        assert!(files.begin(file("c", 0), &limits).is_err(), "incomplete");
        assert!(files.append(b"cd").is_err(), "more than was announced");
        files.append(b"c").unwrap();
        files.begin(file("c", 7), &limits).unwrap();
        files.append(b"0123456").unwrap();
        assert!(files.begin(file("d", 0), &limits).is_err(), "too many");
        let files = files.into_files();
        assert_eq!(files[0].content, b"abc");
        assert_eq!(files[0].sha256, ContentHash::of(b"abc").as_str());
    }

    #[test]
    fn a_file_as_it_was_given_may_come_first_under_a_name_that_was_a_further_one() {
        let node = |kind| Node::new(kind, 0o644, 1);
        let content = NodeKind::File {
            sha256: ContentHash::of(b""),
            size: 0,
        };
        let tree: Tree = [
            ("a".into(), node(NodeKind::HardLink("b".into()))),
            ("b".into(), node(content.clone())),
        ]
        .into_iter()
        .collect();
        let (_folder, job) = with_workspace(tree);
        let mut entries = ReceivedEntries::of(&job);
        for header in [
            header("a", EntryKind::AsGiven),
            header("b", EntryKind::HardLink("a".into())),
        ] {
            entries.begin(header, &job.limits).unwrap();
        }
        let left = entries.tree().unwrap().unwrap();
        assert_eq!(left.get(&"a".into()).unwrap().kind, content);
        let link = NodeKind::HardLink("a".into());
        assert_eq!(left.get(&"b".into()).unwrap().kind, link);
    }

    #[test]
    fn a_tree_is_received_with_all_that_it_has_and_nothing_that_cannot_be() {
        let (_folder, mut job) = with_workspace(Tree::default());
        job = job.file("given", "g");
        let mut secret = crate::InputFile::new("secret", "s");
        secret.secret = true;
        job.files.push(secret);
        let limits = job.limits;
        let mut entries = ReceivedEntries::of(&job);
        for header in [
            header("d", EntryKind::Folder),
            file("d/new", 3),
            header("given", EntryKind::AsGiven),
            header("secret", EntryKind::AsGiven),
            header("secret-2", EntryKind::HardLink("secret".into())),
        ] {
            let size = matches!(header.kind, EntryKind::File(_));
            entries.begin(header, &limits).unwrap();
            if size {
                entries.append(b"new").unwrap();
            }
        }
        let tree = entries.tree().unwrap().unwrap();
        let names: Vec<String> = tree.iter().map(|(path, _)| path.text()).collect();
        assert_eq!(names, ["d", "d/new", "given"], "a secret is not carried");
        let content = &job.workspace.as_ref().unwrap().content;
        assert_eq!(content.read(&ContentHash::of(b"new")).unwrap(), b"new");

        for bad in [
            header("never-given", EntryKind::AsGiven),
            file("large", 11),
            header("/abs", EntryKind::Folder),
        ] {
            assert!(
                ReceivedEntries::of(&job)
                    .begin(bad.clone(), &limits)
                    .is_err(),
                "{bad:?}"
            );
        }
        let mut many = ReceivedEntries::of(&job);
        for name in ["a", "b", "c", "d"] {
            many.begin(header(name, EntryKind::Folder), &limits)
                .unwrap();
        }
        assert!(many.begin(header("e", EntryKind::Folder), &limits).is_err());
        // A link that leads nowhere is no tree, however it came.
        let mut dangling = ReceivedEntries::of(&job);
        dangling
            .begin(header("l", EntryKind::HardLink("x".into())), &limits)
            .unwrap();
        assert!(
            dangling
                .tree()
                .unwrap()
                .unwrap_err()
                .contains("no regular file")
        );
    }
}
