//! A workspace after a step: its tree, who wrote what, and where the content is.
//!
//! Each entry knows the call that changed it last, and so does each path that was removed. That makes the end states of
//! parallel calls comparable: of two states of a path, the one whose writer knew of the other's counts; if neither knew,
//! both have to be the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::decimal::whole;
use crate::{ContentHash, Node, Tree, TreePath};

/// The version of the form that is written.
const VERSION: u32 = 1;

/// The mode of a job's folder, if nothing has changed it.
pub(crate) const ROOT_MODE: u32 = 0o755;

/// A tool call of a plan, by its index; `None` is what was there before the first one.
pub type Writer = Option<u32>;

/// Where the content of a file is: in which of [`Snapshot::objects`], and from which byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// The index of the object.
    pub object: usize,
    /// Bytes before the content.
    pub offset: u64,
}

/// Content in the artifact store: of one large file, or of many small ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Its hash.
    pub sha256: ContentHash,
    /// Its length, in bytes.
    pub size: u64,
}

/// An entry, and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The entry.
    pub node: Node,
    /// The call that changed it last, apart from its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Writer,
    /// Where its content is, if it is a file that is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
}

/// A workspace as it was after a step. Its JSON is what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// Where content is.
    pub objects: Vec<Object>,
    /// What is there.
    #[serde(with = "pairs")]
    pub entries: BTreeMap<TreePath, Kept>,
    /// What was removed with all that was below it, and by whom.
    #[serde(with = "pairs")]
    pub(crate) removed: BTreeMap<TreePath, Writer>,
    /// The mode of the folder itself, if it is or was another than the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<Root>,
}

/// The mode of the folder that a workspace is in, and who set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) mode: u32,
    pub(crate) by: Writer,
}

/// What a row says of a snapshot: where it is, and how large what it describes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotRef {
    /// The hash of its JSON, under which that is stored.
    pub sha256: ContentHash,
    /// The length of its JSON, in bytes.
    #[serde(deserialize_with = "whole")]
    pub size: u64,
    /// Files, folders and links.
    #[serde(deserialize_with = "whole")]
    pub entries: u64,
    /// Content of the files, in bytes.
    #[serde(deserialize_with = "whole")]
    pub bytes: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            version: VERSION,
            objects: Vec::new(),
            entries: BTreeMap::new(),
            removed: BTreeMap::new(),
            root: None,
        }
    }
}

/// What became of a path.
pub(crate) enum State<'a> {
    There(&'a Kept),
    Removed(Writer),
    Never,
}

impl State<'_> {
    pub(crate) fn writer(&self) -> Writer {
        match self {
            Self::There(kept) => kept.by,
            Self::Removed(by) => *by,
            Self::Never => None,
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::There(one), Self::There(other)) => one.node.is_same(&other.node),
            (Self::There(_), _) | (_, Self::There(_)) => false,
            _ => true,
        }
    }
}

impl Snapshot {
    /// The mode of the folder itself, if a call or the archive that the run began with has set another than the usual one.
    #[must_use]
    pub fn root(&self) -> Option<u32> {
        self.root.map(|it| it.mode)
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let entries = self.entries.iter();
        let mut tree: Tree = entries
            .map(|(path, kept)| (path.clone(), kept.node.clone()))
            .collect();
        if let Some(mode) = self.root() {
            tree.set_root(mode);
        }
        tree
    }

    /// Where the content of each hash is.
    #[must_use]
    pub fn content(&self) -> HashMap<&ContentHash, At> {
        let kept = self.entries.values();
        kept.filter_map(|kept| Some((kept.node.content()?.0, kept.at?)))
            .collect()
    }

    /// The workspace as a call that began with this one left it. Content that was here is where it was; other content is
    /// nowhere yet.
    #[must_use]
    pub fn after(&self, left: Tree, by: Writer) -> Self {
        let content = self.content();
        let mode = self.root().unwrap_or(ROOT_MODE);
        let changed = left.root().filter(|it| *it != mode);
        let root = changed.map(|mode| Root { mode, by }).or(self.root);
        let entries: BTreeMap<TreePath, Kept> = left
            .into_iter()
            .map(|(path, node)| {
                let before = self.entries.get(&path);
                let same = before.filter(|before| before.node.is_same(&node));
                let kept = Kept {
                    by: same.map_or(by, |same| same.by),
                    at: node
                        .content()
                        .and_then(|(hash, _)| content.get(hash).copied()),
                    node,
                };
                (path, kept)
            })
            .collect();
        let mut removed = self.removed.clone();
        let mut last: Option<&TreePath> = None;
        for path in self
            .entries
            .keys()
            .filter(|path| !entries.contains_key(*path))
        {
            // One entry for a folder with all that was in it.
            if last.is_some_and(|folder| path.is_below(folder)) {
                continue;
            }
            removed.retain(|older, _| !older.is_below(path));
            removed.insert(path.clone(), by);
            last = Some(path);
        }
        let mut after = Self {
            version: VERSION,
            objects: self.objects.clone(),
            entries,
            removed,
            root,
        };
        after.forget_unused();
        after
    }

    /// Removes objects that no entry needs.
    pub fn forget_unused(&mut self) {
        let used: BTreeSet<usize> = self
            .entries
            .values()
            .filter_map(|it| it.at.map(|at| at.object))
            .collect();
        let places: HashMap<usize, usize> = used
            .iter()
            .enumerate()
            .map(|(new, old)| (*old, new))
            .collect();
        let mut index = 0;
        self.objects.retain(|_| {
            index += 1;
            used.contains(&(index - 1))
        });
        for at in self.entries.values_mut().filter_map(|it| it.at.as_mut()) {
            at.object = places[&at.object];
        }
    }

    /// Whether all that it says of content can be true.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.version == VERSION
            && self
                .entries
                .values()
                .all(|kept| match (kept.node.content(), kept.at) {
                    (Some((_, 0)), None) => true,
                    (Some((_, size)), Some(at)) => {
                        self.objects.get(at.object).is_some_and(|object| {
                            at.offset
                                .checked_add(size)
                                .is_some_and(|end| end <= object.size)
                        })
                    }
                    (None, None) => true,
                    _ => false,
                })
    }

    pub(crate) fn state(&self, path: &TreePath) -> State<'_> {
        if let Some(kept) = self.entries.get(path) {
            return State::There(kept);
        }
        let mut at = Some(path.clone());
        while let Some(place) = at {
            if let Some(by) = self.removed.get(&place) {
                return State::Removed(*by);
            }
            at = place.parent();
        }
        State::Never
    }

    /// Adds content that lies in another snapshot's object; returns where it is here.
    pub(crate) fn adopt(&mut self, from: &Self, at: At) -> At {
        let object = &from.objects[at.object];
        let known = self.objects.iter().position(|it| it == object);
        At {
            object: known.unwrap_or_else(|| {
                self.objects.push(object.clone());
                self.objects.len() - 1
            }),
            offset: at.offset,
        }
    }
}

/// A map whose keys are no strings, as a list of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tree::tests::{file, folder, tree};

    /// What this call left of what it found.
    pub(crate) fn left(found: &Snapshot, by: u32, entries: &[(&str, Node)]) -> Snapshot {
        found.after(tree(entries), Some(by))
    }

    pub(crate) fn base() -> Snapshot {
        let entries = [
            ("a", file("a")),
            ("d", folder()),
            ("d/b", file("b")),
            ("d/c", file("c")),
        ];
        Snapshot::default().after(tree(&entries), None)
    }

    #[test]
    fn content_stays_where_it_is_and_unused_objects_are_forgotten() {
        let mut base = base();
        for (index, hash) in ["x", "y"].iter().enumerate() {
            let size = if index == 0 { 2 } else { 1 };
            base.objects.push(Object {
                sha256: ContentHash::of(hash.as_bytes()),
                size,
            });
        }
        for (path, object, offset) in [("a", 0, 0), ("d/b", 0, 1), ("d/c", 1, 0)] {
            base.entries.get_mut(&path.into()).unwrap().at = Some(At { object, offset });
        }
        assert!(base.is_whole());
        let moved = left(&base, 0, &[("moved", file("c")), ("new", file("new"))]);
        assert_eq!(
            moved.entries[&"moved".into()].at,
            Some(At {
                object: 0,
                offset: 0
            })
        );
        assert_eq!(moved.objects, base.objects[1..]);
        assert!(!moved.is_whole(), "the new file has no place yet");
        let text = serde_json::to_string(&base).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), base);
    }
}
