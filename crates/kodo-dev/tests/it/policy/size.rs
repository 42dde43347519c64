//! No file is longer than a person reads in one sitting.

use super::{assert_clean, files};

/// The limit; the aim is 300.
const MAX_LINES: usize = 800;

/// Files that a tool writes and nobody reads from the top.
const WRITTEN_BY_TOOLS: [&str; 2] = ["Cargo.lock", "package-lock.json"];

fn judge(name: &str, bytes: &[u8]) -> Option<String> {
    // A file with a NUL is no text.
    if bytes.contains(&0) || WRITTEN_BY_TOOLS.iter().any(|tool| name.ends_with(tool)) {
        return None;
    }
    let lines = String::from_utf8_lossy(bytes).lines().count();
    (lines > MAX_LINES).then(|| format!("{name}: {lines} lines, the limit is {MAX_LINES}"))
}

#[test]
fn no_file_has_more_than_800_lines() {
    let findings: Vec<String> = files(|_| true)
        .iter()
        .filter_map(|(name, bytes)| judge(name, bytes))
        .collect();
    assert_clean(&findings);
}

#[test]
fn the_line_after_the_last_allowed_one_is_one_too_many_also_without_an_end() {
    let mut bytes = b"x\n".repeat(800);
    assert_eq!(judge("lib.rs", &bytes), None);
    bytes.push(b'x');
    assert!(judge("lib.rs", &bytes).is_some_and(|found| found.contains("801 lines")));
    assert_eq!(judge("test/Cargo.lock", &bytes), None);
}
