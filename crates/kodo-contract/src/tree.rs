//! A workspace as a tree: folders, files, links, with modes and times; what it may hold, and what it may not.
//!
//! Paths are relative to the job's folder and lead nowhere else. They are bytes, as the kernel has them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::ContentHash;

/// The longest path, in bytes: what Linux takes without the final NUL.
pub const MAX_TREE_PATH: usize = 4095;
/// The most folders that a path goes through.
pub const MAX_TREE_DEPTH: usize = 256;
/// The most bytes of all paths and link targets together: they stand in memory and in what is stored after every step.
pub const MAX_TREE_NAMES: u64 = 16 << 20;
/// The longest name of one entry: what file systems take.
const MAX_NAME: usize = 255;
/// The mode bits that are carried: permissions, and the sticky bit. Never those that change a user or a group.
const MODE: u32 = 0o1777;

/// A path below the job's folder, or the target of a symbolic link: bytes without U+0000.
///
/// In JSON a string, or `{"hex": "…"}` where the bytes are no UTF-8. A list of the bytes is read, too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// These bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, with U+FFFD for what is none.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The folder that it is in; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let at = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..at].to_vec()))
    }

    /// Whether it lies below this folder.
    #[must_use]
    pub fn is_below(&self, folder: &Self) -> bool {
        self.0
            .strip_prefix(folder.0.as_slice())
            .is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// What is wrong with it as the path of an entry.
    ///
    /// # Errors
    /// [`TreeFault::Path`], or one of the limits.
    pub fn check(&self) -> Result<(), TreeFault> {
        let fault = |reason| {
            Err(TreeFault::Path {
                path: self.clone(),
                reason,
            })
        };
        if self.0.len() > MAX_TREE_PATH {
            return Err(TreeFault::PathLength {
                path: self.clone(),
                length: self.0.len(),
            });
        }
        if self.0.first() == Some(&b'/') {
            return fault("is absolute");
        }
        if self.0.contains(&0) {
            return fault("has a U+0000");
        }
        let mut depth = 0;
        for name in self.0.split(|byte| *byte == b'/') {
            depth += 1;
            match name {
                b"" => return fault("has an empty component"),
                b"." | b".." => return fault("has a component `.` or `..`"),
                long if long.len() > MAX_NAME => {
                    return fault("has a component of more than 255 bytes");
                }
                _ => {}
            }
        }
        if depth > MAX_TREE_DEPTH {
            return Err(TreeFault::Depth {
                path: self.clone(),
                depth,
            });
        }
        Ok(())
    }
}

impl From<&str> for TreePath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Chosen by a program: it must not draw on a terminal, and an error stays one line.
        write!(f, "\"{}\"", self.text().escape_debug())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("hex", hex::encode(&self.0))]),
        }
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = TreePath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path: a string, `hex` with its bytes, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TreePath, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<TreePath, A::Error> {
                let mut path = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    path.push(byte);
                }
                Ok(TreePath(path))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TreePath, A::Error> {
                let bytes = match map.next_entry::<String, String>()? {
                    Some((key, digits)) if key == "hex" => hex::decode(digits).ok(),
                    _ => None,
                };
                let more = map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some();
                bytes
                    .filter(|_| !more)
                    .map(TreePath)
                    .ok_or_else(|| de::Error::custom("a path that is no string has `hex` alone"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

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

    /// What it and its path add to [`MAX_TREE_NAMES`].
    #[must_use]
    pub fn name_bytes(&self, path: &TreePath) -> u64 {
        let target = match &self.kind {
            NodeKind::Symlink(to) | NodeKind::HardLink(to) => to.0.len(),
            NodeKind::Folder | NodeKind::File { .. } => 0,
        };
        (path.0.len() + target) as u64
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

/// A tree, by path. A folder comes before what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<TreePath, Node>);

impl Tree {
    /// The entry at a path.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.0.get(path)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content of all files, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.0.values().filter_map(Node::content);
        sizes.fold(0, |sum, (_, size)| sum.saturating_add(size))
    }

    /// Adds an entry as it is; returns what was there.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Option<Node> {
        self.0.insert(path, node)
    }

    /// Puts an entry over what is there: it replaces what cannot exist beside it, and the folders that it needs are made.
    /// A folder over a folder keeps what is in it. A file that goes and has another name stays under that one.
    pub fn put(&mut self, path: TreePath, node: Node) {
        // A folder stands in folders: nothing is missing above one.
        let missing: Vec<TreePath> = std::iter::successors(path.parent(), TreePath::parent)
            .take_while(|folder| !self.get(folder).is_some_and(Node::is_folder))
            .collect();
        for folder in missing.into_iter().rev() {
            self.remove(&folder);
            let made = Node::new(NodeKind::Folder, 0o755, node.modified);
            self.0.insert(folder, made);
        }
        if !(node.is_folder() && self.get(&path).is_some_and(Node::is_folder)) {
            self.remove(&path);
        }
        self.0.insert(path, node);
    }

    /// Removes an entry with all that is below it.
    pub fn remove(&mut self, path: &TreePath) {
        let below = self.0.range((Bound::Excluded(path), Bound::Unbounded));
        let mut gone: Vec<TreePath> = below
            .map(|(name, _)| name)
            // Between a folder and what is in it stand names such as `folder-2`.
            .take_while(|name| name.as_bytes().starts_with(path.as_bytes()))
            .filter(|name| name.is_below(path))
            .cloned()
            .collect();
        gone.push(path.clone());
        let mut files = Vec::new();
        for name in gone {
            if let Some(node) = self.0.remove(&name)
                && node.content().is_some()
            {
                files.push((name, node));
            }
        }
        for (name, node) in files {
            self.rename_links(&name, &node);
        }
    }

    /// The first further name of a file that is gone becomes the file, and the others lead there.
    fn rename_links(&mut self, gone: &TreePath, file: &Node) {
        let to_it = NodeKind::HardLink(gone.clone());
        let mut names = self.0.iter_mut().filter(|(_, node)| node.kind == to_it);
        let Some((heir, node)) = names.next() else {
            return;
        };
        *node = file.clone();
        let heir = heir.clone();
        for (_, node) in names {
            node.kind = NodeKind::HardLink(heir.clone());
        }
    }

    /// Checks everything that can be checked without a file system.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, bounds: &TreeBounds) -> Result<(), TreeFault> {
        if self.0.len() as u64 > bounds.entries {
            return Err(TreeFault::Entries {
                most: bounds.entries,
            });
        }
        if self.bytes() > bounds.bytes {
            return Err(TreeFault::Bytes { most: bounds.bytes });
        }
        let mut names = 0;
        for (path, node) in &self.0 {
            path.check()?;
            names += node.name_bytes(path);
            if names > MAX_TREE_NAMES {
                return Err(TreeFault::Names);
            }
            if let Some(folder) = path.parent()
                && !self.get(&folder).is_some_and(Node::is_folder)
            {
                return Err(TreeFault::NoFolder { path: path.clone() });
            }
            match &node.kind {
                NodeKind::HardLink(to) if self.get(to).and_then(Node::content).is_none() => {
                    return Err(TreeFault::NoFile {
                        path: path.clone(),
                        to: to.clone(),
                    });
                }
                NodeKind::Symlink(to)
                    if to.0.is_empty() || to.0.len() > MAX_TREE_PATH || to.0.contains(&0) =>
                {
                    return Err(TreeFault::Target { path: path.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl FromIterator<(TreePath, Node)> for Tree {
    fn from_iter<I: IntoIterator<Item = (TreePath, Node)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl IntoIterator for Tree {
    type Item = (TreePath, Node);
    type IntoIter = std::collections::btree_map::IntoIter<TreePath, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn file(content: &str) -> Node {
        let kind = NodeKind::File {
            sha256: ContentHash::of(content.as_bytes()),
            size: content.len() as u64,
        };
        Node::new(kind, 0o644, 0)
    }

    pub(crate) fn folder() -> Node {
        Node::new(NodeKind::Folder, 0o755, 0)
    }

    fn hard_link(to: &str) -> Node {
        Node::new(NodeKind::HardLink(to.into()), 0o644, 0)
    }

    pub(crate) fn tree(entries: &[(&str, Node)]) -> Tree {
        let entries = entries.iter().cloned();
        entries.map(|(path, node)| (path.into(), node)).collect()
    }

    fn names(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, _)| path.text()).collect()
    }

    #[test]
    fn no_path_leads_out_of_a_tree() {
        for bad in ["", "/a", "..", "a/../b", "a//b", "./a", "a/", "a\0"] {
            assert!(TreePath::from(bad).check().is_err(), "{bad:?}");
        }
        for bad in [
            "x".repeat(256),
            vec!["x".repeat(250); 17].join("/"),
            vec!["x"; 257].join("/"),
        ] {
            assert!(TreePath::from(&*bad).check().is_err(), "{}", bad.len());
        }
        for good in ["a", ".git", "a/b c/..d", "a\nb"] {
            assert_eq!(TreePath::from(good).check(), Ok(()), "{good:?}");
        }
        assert_eq!(TreePath::new(b"\xff/a".to_vec()).check(), Ok(()));
    }

    #[test]
    fn what_stands_in_no_folder_and_links_to_nothing_is_no_tree() {
        let bounds = TreeBounds::default();
        let fault =
            |entries: &[(&str, Node)]| tree(entries).check(&bounds).unwrap_err().to_string();
        assert!(fault(&[("a/b", file("x"))]).contains("no folder"));
        assert!(fault(&[("a", file("x")), ("a/b", file("x"))]).contains("no folder"));
        let link = Node::new(NodeKind::Symlink("/etc".into()), 0o777, 0);
        assert!(fault(&[("a", link), ("a/passwd", file("x"))]).contains("no folder"));
        assert!(fault(&[("a", hard_link("b"))]).contains("no regular file"));
        assert!(fault(&[("a", hard_link("a"))]).contains("no regular file"));
        let empty = Node::new(NodeKind::Symlink("".into()), 0o777, 0);
        assert!(fault(&[("a", empty)]).contains("target"));
    }

    #[test]
    fn a_limit_is_told_with_its_number_and_its_setting() {
        let two = tree(&[("a", file("xy")), ("b", file("z"))]);
        let bounds = |entries, bytes| TreeBounds { entries, bytes };
        assert_eq!(two.check(&bounds(2, 3)), Ok(()));
        let fault = two.check(&bounds(1, 3)).unwrap_err();
        assert!(fault.is_limit());
        assert!(fault.to_string().contains("more than 1 entries"), "{fault}");
        assert!(fault.to_string().contains("SBX_WORKSPACE_ENTRIES"));
        let fault = two.check(&bounds(2, 2)).unwrap_err().to_string();
        assert!(fault.contains("more than 2 bytes") && fault.contains("SBX_WORKSPACE_MIB"));
    }

    #[test]
    fn all_paths_and_targets_together_are_bounded() {
        let long = "x".repeat(250);
        let target = Node::new(
            NodeKind::Symlink(vec![&*long; 16].join("/").as_str().into()),
            0o777,
            0,
        );
        let links = |count: usize| -> Tree {
            let path = |index: usize| format!("{index:0>100}").as_str().into();
            (0..count)
                .map(|index| (path(index), target.clone()))
                .collect()
        };
        let most = (MAX_TREE_NAMES / target.name_bytes(&"x".repeat(100).as_str().into())) as usize;
        let bounds = TreeBounds::default();
        assert_eq!(links(most).check(&bounds), Ok(()));
        let fault = links(most + 1).check(&bounds).unwrap_err();
        assert!(
            fault.is_limit() && fault.to_string().contains("16777216 bytes"),
            "{fault}"
        );
    }

    #[test]
    fn a_path_that_is_no_text_is_short_in_json_and_the_older_form_is_read() {
        let path = TreePath::new(b"a/\xff".to_vec());
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(text, r#"{"hex":"612fff"}"#);
        for form in [text.as_str(), "[97,47,255]"] {
            assert_eq!(serde_json::from_str::<TreePath>(form).unwrap(), path);
        }
        for bad in [
            r#"{"hex":"f"}"#,
            r#"{"hex":"zz"}"#,
            r#"{"other":"ff"}"#,
            "{}",
            r#"{"hex":"ff","hex":"ff"}"#,
        ] {
            assert!(serde_json::from_str::<TreePath>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_put_over_a_tree_takes_the_place_of_what_it_cannot_stand_beside() {
        let mut over = tree(&[
            ("a", file("old")),
            ("d", folder()),
            ("d-2", file("stays")),
            ("d/x", file("goes")),
        ]);
        over.put("a/b/c".into(), file("new"));
        over.put("d".into(), file("now a file"));
        assert_eq!(names(&over), ["a", "a/b", "a/b/c", "d", "d-2"]);
        assert_eq!(over.check(&TreeBounds::default()), Ok(()));
        over.put("a".into(), Node::new(NodeKind::Folder, 0o700, 0));
        assert_eq!(names(&over).len(), 5, "a folder keeps what is in it");
    }

    #[test]
    fn a_file_whose_first_name_goes_stays_under_its_others() {
        let mut linked = tree(&[
            ("a", file("content")),
            ("b", hard_link("a")),
            ("c", hard_link("a")),
        ]);
        linked.put("a".into(), file("another"));
        assert_eq!(linked.get(&"b".into()), Some(&file("content")));
        assert_eq!(linked.get(&"c".into()), Some(&hard_link("b")));
        assert_eq!(linked.check(&TreeBounds::default()), Ok(()));
    }

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
