//! The goldens, each with the test that claims it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use kodo_harness::{Goldens, Mode};

use crate::{answers, demo, help};

/// What a golden is compared with: one text, or the texts of a folder by file name.
pub enum Shown {
    File(String),
    Folder(BTreeMap<String, String>),
}

/// Declares the goldens: test, names below `tests/golden`, what makes their texts. A golden that is not declared here is
/// one that no test claims.
macro_rules! goldens {
    ($($test:ident: $($name:literal),+ = $shown:path;)*) => {
        const CLAIMED: &[&str] = &[$($($name),+),*];

        $(
            #[tokio::test]
            async fn $test() {
                check(&[$($name),+], $shown().await);
            }
        )*
    };
}

goldens! {
    the_demo_run_and_what_it_leaves_are_their_goldens_wherever_it_runs:
        "run-view.json", "database" = demo::all;
    every_answer_of_the_api_is_its_golden: "http" = answers::all;
    the_help_of_every_command_is_its_golden: "cli" = help::all;
}

/// Each golden is looked at, also where an earlier one does not fit.
fn check(names: &[&str], shown: Vec<Shown>) {
    assert_eq!(names.len(), shown.len());
    let goldens = goldens();
    let compared = names.iter().zip(&shown).map(|(name, shown)| match shown {
        Shown::File(text) => goldens.file(name, text),
        Shown::Folder(texts) => goldens.folder(name, texts),
    });
    let wrong = compared
        .filter_map(Result::err)
        .map(|error| error.to_string());
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_golden_is_there_that_no_test_claims() {
    if let Err(error) = goldens().nothing_but(CLAIMED) {
        panic!("{error}");
    }
}

/// Whether diffs are for a terminal. A test runner that captures a test's output hides the terminal; whoever started
/// it says so by `CLICOLOR_FORCE`.
pub fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    !set("NO_COLOR") && (set("CLICOLOR_FORCE") || std::io::stderr().is_terminal())
}

/// The folder in the repository. It is only written to where the environment names a folder for reports, as
/// `test:golden:refresh` does.
fn goldens() -> Goldens {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let reports = std::env::var_os("KODO_GOLDEN_REFRESH").map(PathBuf::from);
    let mode = reports.map_or(Mode::Compare, |reports| Mode::Refresh { reports });
    Goldens::new(
        root.expect("the repository").join("tests/golden"),
        mode,
        colour(),
    )
}
