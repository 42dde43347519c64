//! The end states of parallel calls, put together: what a call finds that depends on several.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::snapshot::{ROOT_MODE, Root, State};
use crate::{NodeKind, Snapshot, TreePath, Writer};

/// Parallel calls changed one path differently.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{path} was changed differently by {one} and by {other}, neither of which came after the other"
)]
pub struct Conflict {
    /// The path.
    pub path: TreePath,
    one: String,
    other: String,
}

impl Conflict {
    fn of(path: &TreePath, one: Writer, other: Writer) -> Self {
        let name = |writer: Writer| {
            writer.map_or_else(
                || "the run's inputs".to_owned(),
                |index| format!("tool call {}", index + 1),
            )
        };
        Self {
            path: path.clone(),
            one: name(one),
            other: name(other),
        }
    }
}

/// The end state of a call with all that it depends on.
#[derive(Debug)]
pub struct Branch {
    /// What it left.
    pub end: Snapshot,
    /// The call itself, and every one that it depends on, directly or not.
    pub knows: BTreeSet<u32>,
}

/// What a call finds that depends on these, in the plan's order.
///
/// # Errors
/// [`Conflict`], for the first path that parallel calls changed differently.
pub fn merge(branches: impl IntoIterator<Item = Branch>) -> Result<Snapshot, Conflict> {
    let mut branches = branches.into_iter();
    let Some(mut all) = branches.next() else {
        return Ok(Snapshot::default());
    };
    for branch in branches {
        all = all.with(&branch)?;
    }
    Ok(all.end)
}

impl Branch {
    fn knows(&self, writer: Writer) -> bool {
        writer.is_none_or(|writer| self.knows.contains(&writer))
    }

    /// The mode of the folder itself.
    fn root_with(&self, other: &Self) -> Result<Option<Root>, Conflict> {
        let (own, others) = (self.end.root, other.end.root);
        let by = |root: Option<Root>| root.and_then(|it| it.by);
        let mode = |root: Option<Root>| root.map_or(ROOT_MODE, |it| it.mode);
        match (other.knows(by(own)), self.knows(by(others))) {
            (true, false) => Ok(others),
            (false, true) => Ok(own),
            _ if mode(own) == mode(others) => Ok(own),
            _ => Err(Conflict::of(&".".into(), by(own), by(others))),
        }
    }

    fn with(mut self, other: &Self) -> Result<Self, Conflict> {
        let paths: BTreeSet<&TreePath> = self
            .end
            .entries
            .keys()
            .chain(other.end.entries.keys())
            .collect();
        let root = self.root_with(other)?;
        let mut merged = Snapshot::default();
        // Hard links, with the branch that they come from.
        let mut links = Vec::new();
        for path in paths {
            let (own, others) = (self.end.state(path), other.end.state(path));
            let (own_by, others_by) = (own.writer(), others.writer());
            let take_others = match (other.knows(own_by), self.knows(others_by)) {
                (true, false) => true,
                (false, true) => false,
                (known, _) => {
                    if !own.is_same(&others) {
                        return Err(Conflict::of(path, own_by, others_by));
                    }
                    // The same by both, or by neither: the younger time, as if one had come after the other.
                    let time = |state: &State<'_>| match state {
                        State::There(kept) => kept.node.modified,
                        _ => i64::MIN,
                    };
                    time(&others) > time(&own)
                        || (!known && others_by > own_by && time(&others) == time(&own))
                }
            };
            let (from, state) = if take_others {
                (&other.end, others)
            } else {
                (&self.end, own)
            };
            if let State::There(kept) = state {
                let mut kept = kept.clone();
                kept.at = kept.at.map(|at| merged.adopt(from, at));
                if let NodeKind::HardLink(to) = &kept.node.kind {
                    links.push((path.clone(), to.clone(), from));
                }
                merged.entries.insert(path.clone(), kept);
            }
        }
        for (path, to, from) in links {
            let found = merged.entries.get(&to).map(|it| &it.node);
            // Both have it as a name of this file, whatever its content is now: who wrote into the file wrote through all
            // its names.
            let is_link = |end: &Snapshot| {
                let kept = end.entries.get(&path);
                matches!(kept.map(|it| &it.node.kind), Some(NodeKind::HardLink(its)) if *its == to)
            };
            let is_file = found.is_some_and(|it| it.content().is_some());
            if is_file && is_link(&self.end) && is_link(&other.end) {
                continue;
            }
            // A name of a file that the other branch replaced goes on having the content that it had.
            if let Some(meant) = from.entries.get(&to)
                && !found.is_some_and(|it| it.is_same(&meant.node))
            {
                let mut own = meant.clone();
                own.by = merged.entries.get(&path).and_then(|it| it.by);
                own.at = own.at.map(|at| merged.adopt(from, at));
                merged.entries.insert(path, own);
            }
        }
        for (path, kept) in &merged.entries {
            let Some(folder) = path.parent() else {
                continue;
            };
            if !merged
                .entries
                .get(&folder)
                .is_some_and(|it| it.node.is_folder())
            {
                let gone = self
                    .end
                    .state(&folder)
                    .writer()
                    .max(other.end.state(&folder).writer());
                return Err(Conflict::of(path, gone, kept.by));
            }
        }
        for (path, by) in self.end.removed.iter().chain(&other.end.removed) {
            let slot = merged.removed.entry(path.clone()).or_insert(*by);
            // Of two removals the one that knew of the other; of two that did not, either says the same.
            if other.knows(*slot) || *by > *slot {
                *slot = *by;
            }
        }
        self.knows.extend(&other.knows);
        merged.root = root;
        self.end = merged;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Node;
    use crate::snapshot::tests::{base, left};
    use crate::tree::tests::{file, folder, tree};

    fn branch(end: &Snapshot, knows: &[u32]) -> Branch {
        Branch {
            end: end.clone(),
            knows: knows.iter().copied().collect(),
        }
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        snapshot.entries.keys().map(TreePath::text).collect()
    }

    #[test]
    fn what_one_call_removed_stays_away_whatever_the_others_left() {
        let base = base();
        let removes = left(&base, 0, &[("a", file("a"))]);
        let adds = left(
            &base,
            1,
            &[
                ("a", file("a")),
                ("d", folder()),
                ("d/b", file("b")),
                ("d/c", file("c")),
                ("e", file("e")),
            ],
        );
        for (one, other) in [((&removes, 0), (&adds, 1)), ((&adds, 1), (&removes, 0))] {
            let merged = merge([branch(one.0, &[one.1]), branch(other.0, &[other.1])]).unwrap();
            assert_eq!(names(&merged), ["a", "e"]);
            // And it stays away from those that come later.
            let later = merge([branch(&merged, &[0, 1, 2]), branch(&adds, &[1])]).unwrap();
            assert_eq!(names(&later), ["a", "e"]);
        }
    }

    #[test]
    fn a_path_that_parallel_calls_changed_differently_is_a_conflict() {
        let base = base();
        let all = |a: &str| {
            [
                ("a", file(a)),
                ("d", folder()),
                ("d/b", file("b")),
                ("d/c", file("c")),
            ]
        };
        let (one, other) = (left(&base, 0, &all("1")), left(&base, 1, &all("2")));
        let conflict = merge([branch(&one, &[0]), branch(&other, &[1])]).unwrap_err();
        assert_eq!(
            conflict.to_string(),
            r#""a" was changed differently by tool call 1 and by tool call 2, neither of which came after the other"#
        );
        // The same change by both is none, and neither is one that came after the other.
        let same = left(&base, 1, &all("1"));
        assert_eq!(
            names(&merge([branch(&one, &[0]), branch(&same, &[1])]).unwrap()).len(),
            4
        );
        let after = left(&one, 1, &all("2"));
        for (first, second) in [
            ((&one, &[0][..]), (&after, &[0, 1][..])),
            ((&after, &[0, 1]), (&one, &[0])),
        ] {
            let merged = merge([branch(first.0, first.1), branch(second.0, second.1)]).unwrap();
            assert_eq!(merged.entries[&"a".into()].node, file("2"));
        }
        // Removed by one and changed by the other.
        let gone = left(&base, 1, &all("a")[1..]);
        assert!(merge([branch(&one, &[0]), branch(&gone, &[1])]).is_err());
        // A folder that one removed and the other put something into.
        let gone = left(&base, 1, &[("a", file("a"))]);
        let into = left(
            &base,
            0,
            &[
                ("a", file("a")),
                ("d", folder()),
                ("d/b", file("b")),
                ("d/c", file("c")),
                ("d/n", file("n")),
            ],
        );
        assert_eq!(
            merge([branch(&into, &[0]), branch(&gone, &[1])])
                .unwrap_err()
                .path,
            "d/n".into()
        );
    }

    #[test]
    fn a_diamond_is_no_conflict() {
        let base = base();
        let rest = [("d", folder()), ("d/b", file("b")), ("d/c", file("c"))];
        let with = |a: &str, more: &[(&str, Node)]| {
            let mut entries = vec![("a", file(a))];
            entries.extend(rest.iter().cloned());
            entries.extend(more.iter().cloned());
            tree(&entries)
        };
        let first = base.after(with("1", &[]), Some(0));
        let one = first.after(with("1", &[("one", file("1"))]), Some(1));
        let other = first.after(with("2", &[]), Some(2));
        let merged = merge([branch(&one, &[0, 1]), branch(&other, &[0, 2])]).unwrap();
        assert_eq!(merged.entries[&"a".into()].node, file("2"));
        assert!(names(&merged).contains(&"one".to_owned()));
        let ended = merged.after(with("3", &[]), Some(3));
        let again = merge([branch(&one, &[0, 1]), branch(&ended, &[0, 1, 2, 3])]).unwrap();
        assert_eq!(again.entries[&"a".into()].node, file("3"));
        assert!(
            !names(&again).contains(&"one".to_owned()),
            "removed by the last call"
        );
    }

    #[test]
    fn a_time_alone_is_carried_and_is_no_change() {
        let base = base();
        let touched = |at| Node {
            modified: at,
            ..file("a")
        };
        let one = left(&base, 0, &[("a", touched(5))]);
        let other = left(&base, 1, &[("a", file("new"))]);
        assert_eq!(one.entries[&"a".into()].by, None);
        let merged = merge([branch(&one, &[0]), branch(&other, &[1])]).unwrap();
        assert_eq!(merged.entries[&"a".into()].node, file("new"));
        let later = left(&base, 1, &[("a", touched(7))]);
        let merged = merge([branch(&one, &[0]), branch(&later, &[1])]).unwrap();
        assert_eq!(merged.entries[&"a".into()].node.modified, 7);
    }

    #[test]
    fn a_further_name_of_a_file_keeps_its_content_when_another_call_replaces_the_file() {
        let link = Node::new(NodeKind::HardLink("a".into()), 0o644, 0);
        let base = Snapshot::default().after(tree(&[("a", file("a"))]), None);
        let linked = left(&base, 0, &[("a", file("a")), ("b", link)]);
        let replaced = left(&base, 1, &[("a", file("new"))]);
        let merged = merge([branch(&linked, &[0]), branch(&replaced, &[1])]).unwrap();
        assert_eq!(merged.entries[&"b".into()].node, file("a"));
    }

    #[test]
    fn a_further_name_that_neither_call_changed_leads_to_what_one_of_them_wrote() {
        let at = |time, node| Node {
            modified: time,
            ..node
        };
        let link = |time| at(time, Node::new(NodeKind::HardLink("a".into()), 0o644, 0));
        let base = Snapshot::default().after(tree(&[("a", file("a")), ("b", link(0))]), None);
        // What wrote has the younger times, the other one, or both have the same.
        for (wrote, other) in [(5, 0), (0, 5), (5, 5)] {
            let written = left(
                &base,
                0,
                &[("a", at(wrote, file("new"))), ("b", link(wrote))],
            );
            let beside = left(&base, 1, &[("a", at(other, file("a"))), ("b", link(other))]);
            for (one, two) in [((&written, 0), (&beside, 1)), ((&beside, 1), (&written, 0))] {
                let merged = merge([branch(one.0, &[one.1]), branch(two.0, &[two.1])]).unwrap();
                assert_eq!(merged.entries[&"a".into()].node.kind, file("new").kind);
                assert_eq!(merged.entries[&"b".into()].node.kind, link(0).kind);
            }
        }
        // A new name of a file of which the other one changed the time alone.
        let base = Snapshot::default().after(tree(&[("a", file("a"))]), None);
        let linked = left(&base, 0, &[("a", file("a")), ("b", link(0))]);
        let touched = left(&base, 1, &[("a", at(5, file("a")))]);
        let merged = merge([branch(&linked, &[0]), branch(&touched, &[1])]).unwrap();
        assert_eq!(merged.entries[&"b".into()].node, link(0));
    }

    #[test]
    fn the_folders_own_mode_is_carried_and_two_modes_are_a_conflict() {
        let base = base();
        let with = |by, mode| {
            let mut tree = base.tree();
            tree.set_root(mode);
            base.after(tree, Some(by))
        };
        assert_eq!(with(0, 0o755), base, "the usual mode is no change");
        let (one, usual) = (with(0, 0o700), with(1, 0o755));
        for pair in [[(&one, 0), (&usual, 1)], [(&usual, 1), (&one, 0)]] {
            let merged = merge(pair.map(|(end, by)| branch(end, &[by]))).unwrap();
            assert_eq!(merged.tree().root(), Some(0o700));
            let text = serde_json::to_string(&merged).unwrap();
            assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), merged);
        }
        let other = with(1, 0o750);
        let conflict = merge([branch(&one, &[0]), branch(&other, &[1])]).unwrap_err();
        assert!(conflict.to_string().starts_with("\".\" was changed"));
        let mut back = one.tree();
        back.set_root(0o755);
        let back = one.after(back, Some(2));
        let merged = merge([branch(&back, &[0, 2]), branch(&one, &[0])]).unwrap();
        assert_eq!(merged.tree().root(), Some(0o755));
    }
}
