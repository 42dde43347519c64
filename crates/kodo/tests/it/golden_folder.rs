//! The goldens in the repository: committed texts that what the program shows is compared with, byte for byte.
//!
//! A golden that is missing, different, or claimed by no test fails with the difference, and nothing is written: a test
//! that makes its own baseline proves that the program does what it does. Only `test:golden:refresh` writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use similar::TextDiff;

/// Set by `test:golden:refresh` alone.
const REFRESH: &str = "KODO_GOLDEN_REFRESH";

/// A folder of goldens.
pub struct Goldens {
    folder: PathBuf,
    refresh: bool,
}

/// The folder in the repository.
#[expect(
    clippy::disallowed_methods,
    reason = "what the caller of a test sets for it"
)]
pub fn goldens() -> Goldens {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    Goldens::new(&folder, std::env::var_os(REFRESH).is_some())
}

impl Goldens {
    pub fn new(folder: &Path, refresh: bool) -> Self {
        let folder = folder.to_owned();
        Self { folder, refresh }
    }

    /// Compares one text with the golden of this name.
    pub fn file(&self, name: &str, shown: &str) -> Result<(), String> {
        let path = self.folder.join(name);
        let golden = fs::read(&path);
        if golden
            .as_deref()
            .is_ok_and(|golden| golden == shown.as_bytes())
        {
            return Ok(());
        }
        if self.refresh {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, shown).unwrap();
            return Ok(());
        }
        let golden = golden.unwrap_or_default();
        let golden = String::from_utf8_lossy(&golden);
        Err(format!(
            "{}\nWhere this is meant: `mise run test:golden:refresh`, and review what it changes.",
            diff((&format!("golden {name}"), &golden), ("shown", shown))
        ))
    }

    /// Compares texts with the goldens of a folder, by their file names. The folder holds these and nothing else.
    pub fn folder(&self, name: &str, shown: &BTreeMap<String, String>) -> Result<(), String> {
        let files = shown.iter();
        let mut wrong: Vec<String> = files
            .filter_map(|(file, text)| self.file(&format!("{name}/{file}"), text).err())
            .collect();
        let claimed: BTreeSet<&str> = shown.keys().map(String::as_str).collect();
        wrong.extend(self.nothing_but(name, &claimed).err());
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("\n")),
        }
    }

    /// Checks that a folder, or with an empty name the whole, has these files and folders and nothing else.
    pub fn nothing_but(&self, name: &str, claimed: &BTreeSet<&str>) -> Result<(), String> {
        let folder = self.folder.join(name);
        let entries = fs::read_dir(&folder).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        let stale: Vec<PathBuf> = paths
            .filter(|path| !claimed.contains(path.file_name().unwrap().to_str().unwrap()))
            .collect();
        if !self.refresh && !stale.is_empty() {
            return Err(format!("no test claims these goldens: {stale:?}"));
        }
        for path in stale {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            };
            removed.unwrap();
        }
        Ok(())
    }
}

/// A unified diff from one named text to another.
pub fn diff(from: (&str, &str), to: (&str, &str)) -> String {
    let diff = TextDiff::from_lines(from.1, to.1);
    diff.unified_diff().header(from.0, to.0).to_string()
}
