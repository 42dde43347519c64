//! Files from several sources in one folder, the later replacing the earlier.

use std::collections::BTreeMap;

/// Files by their paths. A later file replaces an earlier one of the same name, a file where it needs a folder, and all that
/// is in a folder of its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay<T>(BTreeMap<String, T>);

impl<T> Default for Overlay<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Overlay<T> {
    /// Adds a file, replacing what cannot exist beside it.
    pub fn put(&mut self, name: &str, file: T) {
        for (end, _) in name.match_indices('/') {
            self.0.remove(&name[..end]);
        }
        let inside = format!("{name}/");
        let below: Vec<String> = self
            .0
            .range(inside.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&inside))
            .cloned()
            .collect();
        for name in below {
            self.0.remove(&name);
        }
        self.0.insert(name.to_owned(), file);
    }

    /// The files, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    /// The same, to keep.
    pub fn into_files(self) -> impl Iterator<Item = T> {
        self.0.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(names: &[&str]) -> Vec<String> {
        let mut overlay = Overlay::default();
        for name in names {
            overlay.put(name, (*name).to_owned());
        }
        overlay.into_files().collect()
    }

    #[test]
    fn a_later_file_takes_the_place_of_what_it_cannot_stand_beside() {
        assert_eq!(after(&["b", "a", "b"]), ["a", "b"]);
        assert_eq!(
            after(&["notes", "notes/x", "notes.txt"]),
            ["notes.txt", "notes/x"]
        );
        assert_eq!(after(&["a/b/c", "a/b/d", "a/bc", "a/b"]), ["a/b", "a/bc"]);
        assert_eq!(after(&["a", "a/b/c"]), ["a/b/c"]);
    }
}
