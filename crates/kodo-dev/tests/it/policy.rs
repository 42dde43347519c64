//! The rules of this repository that no compiler and no linter knows. Each has tests that show it bad input, because a
//! check that nobody has seen fail proves nothing. `bin/mise run policy` runs them all, `policy:NAME` one of them.

mod ddl;
mod layers;
mod manifests;
mod size;
mod tasks;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The topmost folder of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Every file that is committed or would be by `git add .`, with its content, by its path from [`root`].
fn files(wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let root = root();
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files: {listed:?}");
    let names = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<_> = names
        .split('\0')
        .filter(|name| wanted(name))
        // A file that is deleted and not yet committed so is not there.
        .filter_map(|name| Some((name.to_owned(), std::fs::read(root.join(name)).ok()?)))
        .collect();
    assert!(!files.is_empty(), "no file to look at");
    files
}

/// The same for files that are text.
fn texts(wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let files = files(wanted).into_iter();
    files
        .map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap()))
        .collect()
}

/// Fails with everything that was found, a line each.
fn assert_clean(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}
