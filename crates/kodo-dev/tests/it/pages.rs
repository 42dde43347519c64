//! The repository's pages: what they point at exists, and the README stays short.

use std::fs;
use std::path::{Path, PathBuf};

/// The most words of the README: more than that is another page's.
const README_WORDS: usize = 900;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page, with its path below the root.
fn pages() -> Vec<(PathBuf, String)> {
    let folders = [root(), root().join("docs")];
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let pages = files.map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|it| it == "md"));
    pages
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

#[test]
fn every_link_between_pages_leads_to_a_file() {
    let pages = pages();
    assert!(pages.len() >= 10, "{}", pages.len());
    for (path, text) in &pages {
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = path.parent().unwrap().join(target);
            assert!(file.exists(), "{} links to {target}", path.display());
        }
    }
}

#[test]
fn every_file_that_contributing_names_is_there() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let files: Vec<&str> = quoted
        .filter(|word| word.contains('/') && !word.contains(' '))
        // `api/NOUN/VERB.rs`: the contributor's own.
        .filter(|word| !word.contains("VERB"))
        .collect();
    assert!(files.len() >= 20, "{files:?}");
    let missing = files.iter().filter(|file| {
        let mise = file.strip_prefix("bin/mise");
        mise.is_none() && !root().join(file).exists()
    });
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn the_architecture_names_every_crate() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(text.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let words = text.split_whitespace().count();
    assert!(words <= README_WORDS, "README.md has {words} words");
}
