//! The goldens, each with the test that claims it.

use std::collections::BTreeMap;

use crate::golden_folder::goldens;
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

/// Goldens of the integration tests.
const CLAIMED_BY_IT: &[&str] = &["fail-points.json"];

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
    let claimed = [CLAIMED, CLAIMED_BY_IT].concat();
    if let Err(error) = goldens().nothing_but(&claimed) {
        panic!("{error}");
    }
}
