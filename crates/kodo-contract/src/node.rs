//! An entry of a workspace: what it is, its mode, its time.

use serde::{Deserialize, Serialize};

use crate::{ContentHash, TreePath};

/// The mode bits that are carried: permissions, and the sticky bit. Never those that change a user or a group.
pub(crate) const MODE: u32 = 0o1777;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// The hash of its content.
        sha256: ContentHash,
        /// Its length, in bytes.
        size: u64,
    },
    /// A symbolic link. Its target is not looked at: it means something inside of the jail alone.
    Symlink(TreePath),
    /// A further name of the regular file at this path.
    HardLink(TreePath),
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Flat", into = "Flat")]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its permissions, with the sticky bit.
    pub mode: u32,
    /// When it was modified, in nanoseconds since 1970 (UTC).
    pub modified: i64,
}

impl Node {
    /// An entry; of the mode only what is carried.
    #[must_use]
    pub fn new(kind: NodeKind, mode: u32, modified: i64) -> Self {
        Self {
            kind,
            mode: mode & MODE,
            modified,
        }
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.kind == NodeKind::Folder
    }

    /// Hash and length, if it is a regular file.
    #[must_use]
    pub fn content(&self) -> Option<(&ContentHash, u64)> {
        match &self.kind {
            NodeKind::File { sha256, size } => Some((sha256, *size)),
            _ => None,
        }
    }

    /// Whether both are the same apart from their times.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && (self.mode == other.mode || self.is_symlink())
    }

    /// What it and its path add to [`MAX_TREE_NAMES`](crate::MAX_TREE_NAMES).
    #[must_use]
    pub fn name_bytes(&self, path: &TreePath) -> u64 {
        let target = match &self.kind {
            NodeKind::Symlink(to) | NodeKind::HardLink(to) => to.as_bytes().len(),
            NodeKind::Folder | NodeKind::File { .. } => 0,
        };
        (path.as_bytes().len() + target) as u64
    }

    fn is_symlink(&self) -> bool {
        matches!(self.kind, NodeKind::Symlink(_))
    }
}

/// A node as JSON. Without `flatten`, which serde cannot do together with numbers of any length.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat {
    kind: String,
    mode: u32,
    modified: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<ContentHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<TreePath>,
}

impl From<Node> for Flat {
    fn from(node: Node) -> Self {
        let (kind, sha256, size, to) = match node.kind {
            NodeKind::Folder => ("folder", None, None, None),
            NodeKind::File { sha256, size } => ("file", Some(sha256), Some(size), None),
            NodeKind::Symlink(to) => ("symlink", None, None, Some(to)),
            NodeKind::HardLink(to) => ("link", None, None, Some(to)),
        };
        Self {
            kind: kind.to_owned(),
            mode: node.mode,
            modified: node.modified,
            sha256,
            size,
            to,
        }
    }
}

impl TryFrom<Flat> for Node {
    type Error = String;

    fn try_from(flat: Flat) -> Result<Self, String> {
        let kind = match (flat.kind.as_str(), flat.sha256, flat.size, flat.to) {
            ("folder", None, None, None) => NodeKind::Folder,
            ("file", Some(sha256), Some(size), None) => NodeKind::File { sha256, size },
            ("symlink", None, None, Some(to)) => NodeKind::Symlink(to),
            ("link", None, None, Some(to)) => NodeKind::HardLink(to),
            (kind, ..) => return Err(format!("an entry of kind {kind:?} has other members")),
        };
        Ok(Self::new(kind, flat.mode, flat.modified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tests::{file, folder, hard_link};

    #[test]
    fn an_entry_survives_json_whatever_its_name() {
        let nodes = [
            folder(),
            Node::new(file("x").kind, 0o4755, -1_500_000_001),
            Node::new(
                NodeKind::Symlink(TreePath::new(b"../\xff".to_vec())),
                0o777,
                i64::MAX,
            ),
            hard_link("a"),
        ];
        for node in nodes {
            let text = serde_json::to_string(&node).unwrap();
            assert_eq!(serde_json::from_str::<Node>(&text).unwrap(), node, "{text}");
            assert_eq!(node.mode & 0o6000, 0, "no bit that changes a user");
        }
        for bad in [
            r#"{"kind":"file","mode":0,"modified":0}"#,
            r#"{"kind":"fifo","mode":0,"modified":0}"#,
            r#"{"kind":"folder","mode":0,"modified":0,"to":"a"}"#,
        ] {
            assert!(serde_json::from_str::<Node>(bad).is_err(), "{bad}");
        }
    }
}
