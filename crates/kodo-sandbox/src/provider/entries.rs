//! The headers of entries of a workspace that go into a sandbox and come out of it. Content follows in frames of its own.

use kodo_contract::{ContentHash, TreePath};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An entry. If it is a file that is not as it was given, its content follows. A folder without a path is the job's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryHeader {
    /// Its path, relative to the job's folder.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Its mode.
    pub mode: u32,
    /// When it was modified, in nanoseconds since 1970.
    pub modified: i64,
}

impl EntryHeader {
    /// The job's folder itself, of which only the mode is carried.
    #[must_use]
    pub fn root(mode: u32) -> Self {
        Self {
            path: TreePath::new(Vec::new()),
            kind: EntryKind::Folder,
            mode,
            modified: 0,
        }
    }

    /// Whether it is the job's folder itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.kind == EntryKind::Folder && self.path.as_bytes().is_empty()
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A regular file of so many bytes.
    File(u64),
    /// A regular file with the content that was given under this path.
    AsGiven,
    /// A symbolic link to this.
    Symlink(TreePath),
    /// A further name of the file at this path.
    HardLink(TreePath),
}

pub(super) fn hash_of(hash: &Sha256) -> ContentHash {
    ContentHash::from_digest(hash.clone().finalize().into())
}
