//! No source file is longer than a person reads in one sitting.

use std::path::Path;

use anyhow::Context;

use super::{Finding, Verdict};
use crate::repository::Repository;

/// The house rule's limit; its aim is 300.
const MAX_LINES: usize = 800;

/// Files that a tool writes and nobody reads from the top.
const WRITTEN_BY_TOOLS: [&str; 2] = ["Cargo.lock", "package-lock.json"];

pub(super) fn check(repository: &Repository) -> anyhow::Result<Verdict> {
    let mut looked_at = 0;
    let mut findings = Vec::new();
    for file in repository.files()? {
        if is_written_by_a_tool(&file) {
            continue;
        }
        let bytes = std::fs::read(repository.root().join(&file))
            .with_context(|| file.display().to_string())?;
        // No text has a NUL in it; what is no text has no lines.
        if bytes.contains(&0) {
            continue;
        }
        looked_at += 1;
        findings.extend(judge(&file, &bytes));
    }
    Ok(Verdict {
        looked_at: format!("{looked_at} files of at most {MAX_LINES} lines"),
        findings,
    })
}

fn is_written_by_a_tool(file: &Path) -> bool {
    file.file_name()
        .is_some_and(|name| WRITTEN_BY_TOOLS.iter().any(|tool| name == *tool))
}

fn judge(file: &Path, bytes: &[u8]) -> Option<Finding> {
    let ends = bytes.iter().filter(|&&byte| byte == b'\n').count();
    // A last line without its end is a line, too.
    let lines = ends + usize::from(bytes.last().is_some_and(|&byte| byte != b'\n'));
    (lines > MAX_LINES).then(|| {
        Finding::new(
            file.display(),
            format!("{lines} lines, the limit is {MAX_LINES}: give each of its subjects a file of its own"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_after_the_last_allowed_one_is_one_too_many() {
        let file = Path::new("crates/x/src/lib.rs");
        assert_eq!(judge(file, &b"x\n".repeat(800)), None);
        let finding = judge(file, &b"x\n".repeat(801)).unwrap();
        assert!(
            finding
                .to_string()
                .starts_with("crates/x/src/lib.rs: 801 lines"),
            "{finding}"
        );
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        let mut bytes = b"x\n".repeat(800);
        assert_eq!(judge(Path::new("a"), &bytes), None);
        bytes.push(b'x');
        assert!(judge(Path::new("a"), &bytes).is_some());
    }

    #[test]
    fn lock_files_are_nobodys_reading() {
        assert!(is_written_by_a_tool(Path::new("Cargo.lock")));
        assert!(!is_written_by_a_tool(Path::new("docs/course.md")));
    }
}
