//! The goldens, each with the test that claims it.

use std::collections::BTreeMap;

use crate::golden_folder::{Goldens, goldens};
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
    let wrong: Vec<String> = compared.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_golden_is_there_that_no_test_claims() {
    let claimed = CLAIMED.iter().chain(CLAIMED_BY_IT).copied().collect();
    let found = goldens().nothing_but("", &claimed);
    assert_eq!(found, Ok(()));
}

#[test]
fn what_does_not_fit_fails_with_the_difference_and_only_a_refresh_writes() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
    let [strict, refresh] = [false, true].map(|refresh| Goldens::new(folder.path(), refresh));
    refresh.file("f/a", "1\n2\n3\n").unwrap();
    refresh.file("f/old", "").unwrap();
    let shown = |texts: &[(&str, &str)]| -> BTreeMap<String, String> {
        let texts = texts.iter();
        texts
            .map(|(name, text)| ((*name).into(), (*text).into()))
            .collect()
    };
    let now = shown(&[("a", "1\ntwo\n3\n"), ("b", "new")]);
    let wrong = strict.folder("f", &now).unwrap_err();
    for part in [
        "golden f/a",
        "-2\n+two\n",
        "golden f/b",
        "+new",
        "f/old",
        "refresh",
    ] {
        assert!(wrong.contains(part), "{part} in {wrong}");
    }
    assert!(
        strict.file("f/a", "1\n2\n3").is_err(),
        "the last line's end counts"
    );
    assert!(strict.file("f/a", "1\r\n2\r\n3\r\n").is_err());
    assert_eq!(written("f/a").as_deref(), Some("1\n2\n3\n"));
    assert_eq!(
        (written("f/b"), written("f/old").as_deref()),
        (None, Some(""))
    );

    refresh.folder("f", &now).unwrap();
    strict.folder("f", &now).unwrap();
    assert_eq!(
        (written("f/b").as_deref(), written("f/old")),
        (Some("new"), None)
    );
}
