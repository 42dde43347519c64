//! Every shell script parses, with the shell that its first line names.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::{Finding, Verdict};
use crate::repository::Repository;

pub(super) fn check(repository: &Repository) -> anyhow::Result<Verdict> {
    let mut looked_at = 0;
    let mut findings = Vec::new();
    for file in repository.files()? {
        let path = repository.root().join(&file);
        let Some(shell) = shell_of(&path).with_context(|| file.display().to_string())? else {
            continue;
        };
        looked_at += 1;
        findings.extend(judge(shell, &path, &file)?);
    }
    Ok(Verdict {
        looked_at: format!("{looked_at} scripts"),
        findings,
    })
}

/// The shell that a script is for: by its first line, or by its name where it is only sourced.
fn shell_of(path: &PathBuf) -> anyhow::Result<Option<&'static str>> {
    let bytes = std::fs::read(path)?;
    let first = bytes
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    if let Some(command) = first.strip_prefix("#!") {
        let words: Vec<&str> = command.split_whitespace().collect();
        return Ok(words.iter().find_map(|word| match word.rsplit('/').next() {
            Some("bash") => Some("bash"),
            Some("sh" | "dash") => Some("sh"),
            _ => None,
        }));
    }
    let sourced = path
        .extension()
        .is_some_and(|name| name == "sh" || name == "bash");
    Ok(sourced.then_some("bash"))
}

fn judge(shell: &str, path: &Path, file: &Path) -> anyhow::Result<Option<Finding>> {
    let output = Command::new(shell)
        .arg("-n")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{shell} does not start"))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("does not parse");
    Ok(Some(Finding::new(
        file.display(),
        format!("{shell} -n: {said}"),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_script_with_an_open_quote_is_found() {
        let (_folder, path) = written("up", "#!/usr/bin/env bash\necho 'never closed\n");
        assert_eq!(shell_of(&path).unwrap(), Some("bash"));
        let finding = judge("bash", &path, Path::new("up")).unwrap().unwrap();
        assert!(finding.to_string().contains("bash -n"), "{finding}");
    }

    #[test]
    fn a_sound_script_passes_with_its_own_shell() {
        let (_folder, path) = written("up", "#!/usr/bin/env bash\na=(1 2)\necho \"${a[@]}\"\n");
        assert_eq!(judge("bash", &path, Path::new("up")).unwrap(), None);
        // The same text is no script of a POSIX shell, and its first line decides.
        let (_folder, path) = written("up", "#!/bin/sh -e\nif true; then\n");
        assert_eq!(shell_of(&path).unwrap(), Some("sh"));
        assert!(judge("sh", &path, Path::new("up")).unwrap().is_some());
    }

    #[test]
    fn a_sourced_file_is_known_by_its_name_and_others_are_left_alone() {
        for (name, text, shell) in [
            ("psql.sh", "# sourced\n", Some("bash")),
            ("check.py", "#!/usr/bin/env python3\n", None),
            ("notes.md", "text\n", None),
        ] {
            let (_folder, path) = written(name, text);
            assert_eq!(shell_of(&path).unwrap(), shell, "{name}");
        }
    }
}
