//! How much of a workspace is carried from one call to the next, and why something is none that can be.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::tree_path::{MAX_TREE_DEPTH, MAX_TREE_PATH, TreePath};

/// The most bytes of all paths and link targets together: they stand in memory and in what is stored after every step.
pub const MAX_TREE_NAMES: u64 = 16 << 20;
/// Bounds of what is carried from one call to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeBounds {
    /// Files, folders and links (`SBX_WORKSPACE_ENTRIES`).
    pub entries: u64,
    /// Content of all files, in bytes; a file of several names counts once (`SBX_WORKSPACE_MIB`).
    pub bytes: u64,
}

impl Default for TreeBounds {
    fn default() -> Self {
        Self {
            entries: 100_000,
            bytes: 1 << 30,
        }
    }
}

/// Why something is no tree that can be carried.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TreeFault {
    /// A path that leads out of the tree, or is none.
    #[error("the path {path} {reason}")]
    Path {
        /// The path.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A limit.
    #[error("the path {path} has {length} bytes; at most {MAX_TREE_PATH} are carried")]
    PathLength {
        /// The path.
        path: TreePath,
        /// Its length.
        length: usize,
    },
    /// A limit.
    #[error("the path {path} is {depth} entries deep; at most {MAX_TREE_DEPTH} are carried")]
    Depth {
        /// The path.
        path: TreePath,
        /// Its depth.
        depth: usize,
    },
    /// A limit.
    #[error(
        "the workspace has more than {most} entries, the most that is carried from one call to the next \
         (SBX_WORKSPACE_ENTRIES)"
    )]
    Entries {
        /// The limit.
        most: u64,
    },
    /// A limit.
    #[error(
        "the files in the workspace have more than {most} bytes, the most that is carried from one call to the next \
         (SBX_WORKSPACE_MIB)"
    )]
    Bytes {
        /// The limit.
        most: u64,
    },
    /// A limit.
    #[error(
        "the paths and link targets in the workspace have more than {MAX_TREE_NAMES} bytes together, the most that is \
         carried from one call to the next"
    )]
    Names,
    /// An entry without the folder that it is in.
    #[error("{path} is in something that is no folder of the tree")]
    NoFolder {
        /// The entry.
        path: TreePath,
    },
    /// A hard link to something else than a regular file of the tree.
    #[error("the hard link {path} leads to {to}, which is no regular file of the tree")]
    NoFile {
        /// The link.
        path: TreePath,
        /// Where it leads.
        to: TreePath,
    },
    /// A symbolic link whose target could not exist.
    #[error("the target of the symbolic link {path} must have 1 to 4095 bytes and no U+0000")]
    Target {
        /// The link.
        path: TreePath,
    },
}

impl TreeFault {
    /// Whether a limit is exceeded, so that the same thing in smaller would do.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::PathLength { .. }
                | Self::Depth { .. }
                | Self::Entries { .. }
                | Self::Bytes { .. }
                | Self::Names
        )
    }
}
