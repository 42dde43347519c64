//! A workspace as a tree: folders, files, links, with modes and times; what it may hold, and what it may not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::node::MODE;
use crate::tree_path::MAX_TREE_PATH;
use crate::{MAX_TREE_NAMES, Node, NodeKind, TreeBounds, TreeFault, TreePath};

/// A tree, by path. A folder comes before what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<TreePath, Node>,
    /// The hard links of them, by where they lead.
    links: HashMap<TreePath, BTreeSet<TreePath>>,
    root: Option<u32>,
}

impl Tree {
    /// The mode of the folder that the tree is in; `None` if it is the usual one.
    #[must_use]
    pub fn root(&self) -> Option<u32> {
        self.root
    }

    /// Sets the mode of the folder that the tree is in.
    pub fn set_root(&mut self, mode: u32) {
        self.root = Some(mode & MODE);
    }

    /// The entry at a path.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.entries.get(path)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.entries.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The content of all files, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.values().filter_map(Node::content);
        sizes.fold(0, |sum, (_, size)| sum.saturating_add(size))
    }

    /// Adds an entry as it is; returns what was there.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Option<Node> {
        let before = self.take(&path);
        if let NodeKind::HardLink(to) = &node.kind {
            let links = self.links.entry(to.clone()).or_default();
            links.insert(path.clone());
        }
        self.entries.insert(path, node);
        before
    }

    fn take(&mut self, path: &TreePath) -> Option<Node> {
        let node = self.entries.remove(path)?;
        if let NodeKind::HardLink(to) = &node.kind
            && let Some(links) = self.links.get_mut(to)
        {
            links.remove(path);
            if links.is_empty() {
                self.links.remove(to);
            }
        }
        Some(node)
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
            self.insert(folder, made);
        }
        if !(node.is_folder() && self.get(&path).is_some_and(Node::is_folder)) {
            self.remove(&path);
        }
        self.insert(path, node);
    }

    /// Removes an entry with all that is below it. A file that goes and has another name stays under that one.
    pub fn remove(&mut self, path: &TreePath) {
        let mut gone = self.below(path);
        gone.push(path.clone());
        let nodes: Vec<_> = gone
            .into_iter()
            .filter_map(|name| Some((self.take(&name)?, name)))
            .collect();
        for (node, name) in nodes {
            if node.content().is_some() {
                self.rename_links(&name, node);
            }
        }
    }

    /// The paths of what is below a folder.
    fn below(&self, folder: &TreePath) -> Vec<TreePath> {
        // In the order of bytes, what is below `d` is from `d/` to before `d0`.
        let end = |byte| TreePath::new([folder.as_bytes(), &[byte]].concat());
        let below = self.entries.range(end(b'/')..end(b'/' + 1));
        below.map(|(path, _)| path.clone()).collect()
    }

    /// The first further name of a file that is gone becomes the file, and the others lead there.
    fn rename_links(&mut self, gone: &TreePath, file: Node) {
        let mut names = self
            .links
            .get(gone)
            .cloned()
            .unwrap_or_default()
            .into_iter();
        let Some(heir) = names.next() else {
            return;
        };
        for name in names {
            if let Some(mut node) = self.take(&name) {
                node.kind = NodeKind::HardLink(heir.clone());
                self.insert(name, node);
            }
        }
        self.insert(heir, file);
    }

    /// Checks everything that can be checked without a file system.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, bounds: &TreeBounds) -> Result<(), TreeFault> {
        if self.entries.len() as u64 > bounds.entries {
            return Err(TreeFault::Entries {
                most: bounds.entries,
            });
        }
        if self.bytes() > bounds.bytes {
            return Err(TreeFault::Bytes { most: bounds.bytes });
        }
        let mut names = 0;
        for (path, node) in &self.entries {
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
                    if {
                        let to = to.as_bytes();
                        to.is_empty() || to.len() > MAX_TREE_PATH || to.contains(&0)
                    } =>
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
        let mut tree = Self::default();
        for (path, node) in entries {
            tree.insert(path, node);
        }
        tree
    }
}

impl IntoIterator for Tree {
    type Item = (TreePath, Node);
    type IntoIter = std::collections::btree_map::IntoIter<TreePath, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ContentHash;

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

    pub(crate) fn hard_link(to: &str) -> Node {
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

    /// Each removal looked at every entry of the tree.
    #[test]
    fn a_folder_of_many_linked_files_is_removed_at_once() {
        let many = 60_000;
        let mut large = Tree::default();
        large.put("d".into(), folder());
        for index in 0..many {
            large.insert(format!("d/{index:06}").as_str().into(), file("x"));
            let link = hard_link(&format!("d/{index:06}"));
            large.insert(format!("e{index:06}").as_str().into(), link);
        }
        large.remove(&"d".into());
        assert_eq!(large.len(), many);
        assert!(large.iter().all(|(_, node)| node.content().is_some()));
        large.insert("f".into(), file("x"));
        large.insert("g".into(), hard_link("f"));
        for index in 0..many {
            large.put(format!("e{index:06}").as_str().into(), file("new"));
        }
        assert_eq!(
            large
                .iter()
                .filter(|(_, node)| **node == file("new"))
                .count(),
            many
        );
    }
}
