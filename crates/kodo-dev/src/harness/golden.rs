//! Goldens: committed texts that what the program shows is compared with.
//!
//! A comparison is strict. A baseline that is missing, different, or claimed by nobody is an error with a diff, and
//! nothing is written: a test that makes its own baseline proves that the program does what it does. Only
//! [`Mode::Refresh`] writes, and it reports each file that it looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use similar::{ChangeTag, TextDiff};

/// Lines of agreement that are shown around a difference.
const CONTEXT: usize = 3;

/// What a golden that does not fit means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// An error. Nothing is written.
    Compare,
    /// The golden is rewritten, and what was done with it is written to a file of its own in this folder.
    Refresh {
        /// The folder; it has to exist.
        reports: PathBuf,
    },
}

/// A folder of goldens.
#[derive(Debug, Clone)]
pub struct Goldens {
    folder: PathBuf,
    mode: Mode,
    colour: bool,
}

/// A golden and what is there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Unchanged,
    /// There is no golden; this is what would be in it.
    Missing(String),
    /// The golden has one text, the program shows another.
    Different(String, String),
    /// There is a golden, and nothing that it is the golden of.
    Stale,
}

/// Goldens that do not fit, or that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// At least one does not fit. The text shows each of them with its difference.
    #[error("{0}")]
    Differs(String),
    /// A file could not be read or written.
    #[error("golden {}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Goldens {
    /// The goldens in a folder. `colour` is for diffs that a terminal will show.
    pub fn new(folder: impl Into<PathBuf>, mode: Mode, colour: bool) -> Self {
        Self {
            folder: folder.into(),
            mode,
            colour,
        }
    }

    /// Compares one text with the golden of this name.
    ///
    /// # Errors
    /// [`GoldenError::Differs`] where it is missing or different and the mode is [`Mode::Compare`].
    pub fn file(&self, name: &str, shown: &str) -> Result<(), GoldenError> {
        let finding = self.look(name, Some(shown))?;
        self.settle([(name.to_owned(), finding)].into())
    }

    /// Compares texts with the goldens of a folder, by their file names. The folder holds these and nothing else.
    ///
    /// # Errors
    /// As [`Goldens::file`], and where the folder has a golden that is not among the texts.
    pub fn folder(&self, name: &str, shown: &BTreeMap<String, String>) -> Result<(), GoldenError> {
        let committed = entries(&self.folder.join(name))?;
        let names: BTreeSet<&String> = shown.keys().chain(&committed).collect();
        let mut findings = BTreeMap::new();
        for file in names {
            let path = format!("{name}/{file}");
            let finding = self.look(&path, shown.get(file).map(String::as_str))?;
            findings.insert(path, finding);
        }
        self.settle(findings)
    }

    /// Checks that the folder has these files and folders, and nothing else.
    ///
    /// # Errors
    /// [`GoldenError::Differs`] where it has something that nobody claims and the mode is [`Mode::Compare`].
    pub fn nothing_but(&self, claimed: &[&str]) -> Result<(), GoldenError> {
        let stale = entries(&self.folder)?.into_iter();
        let stale = stale.filter(|entry| !claimed.contains(&entry.as_str()));
        self.settle(stale.map(|entry| (entry, Finding::Stale)).collect())
    }

    fn look(&self, name: &str, shown: Option<&str>) -> Result<Finding, GoldenError> {
        let Some(shown) = shown else {
            return Ok(Finding::Stale);
        };
        let path = self.folder.join(name);
        match fs::read(&path) {
            // Compared as bytes: text that was changed into something that is no UTF-8 is different too.
            Ok(golden) if golden == shown.as_bytes() => Ok(Finding::Unchanged),
            Ok(golden) => {
                let golden = String::from_utf8_lossy(&golden).into_owned();
                Ok(Finding::Different(golden, shown.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Finding::Missing(shown.to_owned()))
            }
            Err(source) => Err(GoldenError::File { path, source }),
        }
    }

    fn settle(&self, findings: BTreeMap<String, Finding>) -> Result<(), GoldenError> {
        match &self.mode {
            Mode::Compare => self.compare(&findings),
            Mode::Refresh { reports } => {
                for (name, finding) in &findings {
                    self.rewrite(name, finding)?;
                    // A name has no blanks of its own, so that no two of them share a report.
                    let report = reports.join(name.replace('/', " "));
                    write(&report, &self.report(name, finding))?;
                }
                Ok(())
            }
        }
    }

    fn compare(&self, findings: &BTreeMap<String, Finding>) -> Result<(), GoldenError> {
        let mut text = String::new();
        for (name, finding) in findings {
            let path = self.folder.join(name);
            let path = path.display();
            let (said, diff) = match finding {
                Finding::Unchanged => continue,
                Finding::Missing(shown) => ("there is no such golden", self.diff(name, "", shown)),
                Finding::Different(golden, shown) => {
                    ("the golden says otherwise", self.diff(name, golden, shown))
                }
                Finding::Stale => ("no test claims this golden", String::new()),
            };
            let _ = writeln!(text, "{path}: {said}\n{diff}");
        }
        if text.is_empty() {
            return Ok(());
        }
        text.push_str(
            "Where this is meant: `mise run test:golden:refresh`, and review what it changes.",
        );
        Err(GoldenError::Differs(text))
    }

    fn rewrite(&self, name: &str, finding: &Finding) -> Result<(), GoldenError> {
        let path = self.folder.join(name);
        match finding {
            Finding::Unchanged => Ok(()),
            Finding::Missing(shown) | Finding::Different(_, shown) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(in_file(parent))?;
                }
                write(&path, shown)
            }
            Finding::Stale if path.is_dir() => fs::remove_dir_all(&path).map_err(in_file(&path)),
            Finding::Stale => fs::remove_file(&path).map_err(in_file(&path)),
        }
    }

    fn report(&self, name: &str, finding: &Finding) -> String {
        match finding {
            Finding::Unchanged => format!("unchanged  {name}\n"),
            Finding::Missing(_) => format!("created    {name}\n"),
            Finding::Different(golden, shown) => {
                format!("changed    {name}\n{}", self.diff(name, golden, shown))
            }
            Finding::Stale => format!("removed    {name}\n"),
        }
    }

    fn diff(&self, name: &str, golden: &str, shown: &str) -> String {
        let names = (format!("golden {name}"), format!("shown  {name}"));
        diff((&names.0, golden), (&names.1, shown), self.colour)
    }
}

/// A unified diff from one named text to another, in colours for a terminal where that is wanted.
pub fn diff(from: (&str, &str), to: (&str, &str), colour: bool) -> String {
    let painted = |style: &str, line: &str| {
        if colour {
            format!("\u{1b}[{style}m{line}\u{1b}[0m\n")
        } else {
            format!("{line}\n")
        }
    };
    let diff = TextDiff::from_lines(from.1, to.1);
    let mut text = painted("1", &format!("--- {}", from.0));
    text.push_str(&painted("1", &format!("+++ {}", to.0)));
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        text.push_str(&painted("36", &hunk.header().to_string()));
        for change in hunk.iter_changes() {
            let line = change.value().trim_end_matches('\n');
            text.push_str(&match change.tag() {
                ChangeTag::Delete => painted("31", &format!("-{line}")),
                ChangeTag::Insert => painted("32", &format!("+{line}")),
                ChangeTag::Equal => format!(" {line}\n"),
            });
            if change.missing_newline() {
                text.push_str("\\ No newline at end of file\n");
            }
        }
    }
    text
}

/// The names in a folder; none where there is no such folder.
fn entries(folder: &Path) -> Result<BTreeSet<String>, GoldenError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => return Err(in_file(folder)(source)),
    };
    listed
        .map(|entry| {
            let entry = entry.map_err(in_file(folder))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

fn write(path: &Path, text: &str) -> Result<(), GoldenError> {
    fs::write(path, text).map_err(in_file(path))
}

fn in_file(path: &Path) -> impl Fn(io::Error) -> GoldenError {
    let path = path.to_owned();
    move |source| GoldenError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    struct Place {
        goldens: TempDir,
        reports: TempDir,
    }

    impl Place {
        fn new(files: &[(&str, &str)]) -> Self {
            let place = Self {
                goldens: tempfile::tempdir().unwrap(),
                reports: tempfile::tempdir().unwrap(),
            };
            for (name, text) in files {
                let path = place.goldens.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            place
        }

        fn strict(&self) -> Goldens {
            Goldens::new(self.goldens.path(), Mode::Compare, false)
        }

        fn refresh(&self) -> Goldens {
            let reports = self.reports.path().to_owned();
            Goldens::new(self.goldens.path(), Mode::Refresh { reports }, false)
        }

        /// Every file, with its text.
        fn files(&self) -> BTreeMap<String, String> {
            texts(self.goldens.path(), "")
        }

        fn reported(&self) -> String {
            texts(self.reports.path(), "").into_values().collect()
        }
    }

    fn texts(folder: &Path, prefix: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for name in entries(folder).unwrap() {
            let path = folder.join(&name);
            if path.is_dir() {
                found.extend(texts(&path, &format!("{prefix}{name}/")));
            } else {
                found.insert(format!("{prefix}{name}"), fs::read_to_string(path).unwrap());
            }
        }
        found
    }

    fn shown(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = texts
            .iter()
            .map(|(name, text)| ((*name).into(), (*text).into()));
        owned.collect()
    }

    #[test]
    fn a_golden_that_fits_passes() {
        let place = Place::new(&[("a.txt", "one\n"), ("f/b.txt", "two\n")]);
        place.strict().file("a.txt", "one\n").unwrap();
        place
            .strict()
            .folder("f", &shown(&[("b.txt", "two\n")]))
            .unwrap();
        place.strict().nothing_but(&["a.txt", "f"]).unwrap();
    }

    #[test]
    fn a_different_golden_fails_with_a_diff_and_stays_as_it_is() {
        let place = Place::new(&[("a.txt", "one\ntwo\nthree\n")]);
        let before = place.files();
        let error = place
            .strict()
            .file("a.txt", "one\n2\nthree\n")
            .unwrap_err()
            .to_string();
        let diff = "--- golden a.txt\n+++ shown  a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n";
        assert!(error.contains(diff), "{error}");
        assert!(error.contains("test:golden:refresh"), "{error}");
        assert_eq!(place.files(), before);
    }

    #[test]
    fn the_last_newline_counts() {
        let place = Place::new(&[("a.txt", "one\n")]);
        let error = place.strict().file("a.txt", "one").unwrap_err().to_string();
        assert!(error.contains("No newline at end of file"), "{error}");
        let error = place
            .strict()
            .file("a.txt", "one\r\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("-one"), "{error}");
    }

    #[test]
    fn a_missing_golden_fails_and_is_not_made() {
        let place = Place::new(&[]);
        let error = place
            .strict()
            .file("a.txt", "one\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("a.txt: there is no such golden"), "{error}");
        assert!(error.contains("+one"), "{error}");
        let error = place
            .strict()
            .folder("f", &shown(&[("b", "")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("f/b: there is no such golden"), "{error}");
        assert_eq!(place.files(), BTreeMap::new());
    }

    #[test]
    fn a_golden_that_nobody_claims_fails_in_a_folder_and_beside_it() {
        let place = Place::new(&[("f/b.txt", "two\n"), ("f/old.txt", "?"), ("old.txt", "?")]);
        let error = place
            .strict()
            .folder("f", &shown(&[("b.txt", "two\n")]))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("f/old.txt: no test claims this golden")
        );
        let error = place.strict().nothing_but(&["f"]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("old.txt: no test claims this golden")
        );
        assert_eq!(place.files().len(), 3);
    }

    #[test]
    fn every_golden_that_does_not_fit_is_shown_at_once() {
        let place = Place::new(&[("f/a", "1\n"), ("f/b", "2\n"), ("f/c", "3\n")]);
        let now = shown(&[("a", "1\n"), ("b", "two\n"), ("d", "4\n")]);
        let error = place.strict().folder("f", &now).unwrap_err().to_string();
        for part in ["+two", "f/c: no test claims", "f/d: there is no such"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(!error.contains("f/a"), "{error}");
    }

    #[test]
    fn a_refresh_makes_everything_fit_and_says_what_it_did_with_each() {
        let place = Place::new(&[
            ("f/a", "1\n"),
            ("f/b", "2\n"),
            ("f/c", "3\n"),
            ("old/x", ""),
        ]);
        let now = shown(&[("a", "1\n"), ("b", "two\n"), ("d", "4\n")]);
        place.refresh().folder("f", &now).unwrap();
        place.refresh().nothing_but(&["f"]).unwrap();
        place.strict().folder("f", &now).unwrap();
        place.strict().nothing_but(&["f"]).unwrap();
        assert_eq!(
            place.files(),
            shown(&[("f/a", "1\n"), ("f/b", "two\n"), ("f/d", "4\n")])
        );
        assert_eq!(
            place.reported(),
            "unchanged  f/a\nchanged    f/b\n--- golden f/b\n+++ shown  f/b\n@@ -1 +1 @@\n-2\n+two\n\
             removed    f/c\ncreated    f/d\nremoved    old\n"
        );
    }

    #[test]
    fn colour_is_in_the_diff_where_it_is_wanted() {
        let place = Place::new(&[("a", "1\n")]);
        let goldens = Goldens::new(place.goldens.path(), Mode::Compare, true);
        let error = goldens.file("a", "2\n").unwrap_err().to_string();
        assert!(
            error.contains("\u{1b}[31m-1\u{1b}[0m\n\u{1b}[32m+2\u{1b}[0m\n"),
            "{error:?}"
        );
    }
}
