//! Every dependency is the workspace's and has its reason beside it.
//!
//! A reason is a comment above the dependency, or above a group of them: lines without a blank line or another comment
//! between. Crates of this workspace need none: the layer map says why they are there.

use std::path::Path;

use anyhow::Context;
use toml_edit::{Document, Key, Table, TableLike};

use super::{Finding, Verdict};
use crate::repository::Repository;

pub(super) fn check(repository: &Repository) -> anyhow::Result<Verdict> {
    let mut looked_at = 0;
    let mut findings = Vec::new();
    for file in repository.files()? {
        if file.file_name().is_none_or(|name| name != "Cargo.toml")
            || file == Path::new("Cargo.toml")
        {
            continue;
        }
        let text = std::fs::read_to_string(repository.root().join(&file))
            .with_context(|| file.display().to_string())?;
        let (count, found) = judge(&file, &text)?;
        looked_at += count;
        findings.extend(found);
    }
    Ok(Verdict {
        looked_at: format!("{looked_at} dependencies, each with its reason"),
        findings,
    })
}

/// How many dependencies a manifest has, and what is wrong with them.
fn judge(file: &Path, text: &str) -> anyhow::Result<(usize, Vec<Finding>)> {
    let manifest = Document::parse(text).with_context(|| file.display().to_string())?;
    let mut judge = Judge {
        file,
        text,
        looked_at: 0,
        findings: Vec::new(),
    };
    judge.tables(manifest.as_table());
    let targets = manifest.get("target").and_then(|item| item.as_table_like());
    for (_, target) in targets.into_iter().flat_map(TableLike::iter) {
        if let Some(target) = target.as_table() {
            judge.tables(target);
        }
    }
    Ok((judge.looked_at, judge.findings))
}

struct Judge<'a> {
    file: &'a Path,
    text: &'a str,
    looked_at: usize,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn tables(&mut self, manifest: &Table) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            if let Some(table) = manifest.get(kind).and_then(|item| item.as_table()) {
                self.table(table);
            }
        }
    }

    fn table(&mut self, table: &Table) {
        let mut has_reason = false;
        for (name, item) in table.iter() {
            self.looked_at += 1;
            // The line above: a reason, the end of a group, or another of the same group.
            match self.line_above(table.key(name)) {
                Some(line) if line.starts_with('#') => has_reason = true,
                Some("") | None => has_reason = false,
                Some(line) if line.starts_with('[') => has_reason = false,
                Some(_) => {}
            }
            let ours = name.starts_with("kodo-") || name == "kodo";
            if !has_reason && !ours {
                self.find(name, "has no comment above it that says why it is needed");
            }
            let inherited = item
                .as_table_like()
                .and_then(|fields| fields.get("workspace"))
                .and_then(|value| value.as_bool());
            if inherited != Some(true) {
                self.find(
                    name,
                    "chooses its own version: name it in the workspace's Cargo.toml, and here `workspace = true`",
                );
            }
        }
    }

    fn line_above(&self, key: Option<&Key>) -> Option<&str> {
        let start = key?.span()?.start;
        let above = self.text.get(..start)?.rsplit_once('\n')?.0;
        Some(above.rsplit('\n').next().unwrap_or(above).trim())
    }

    fn find(&mut self, name: &str, text: &str) {
        let place = format!("{}: {name}", self.file.display());
        self.findings.push(Finding::new(place, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let (_, found) = judge(Path::new("Cargo.toml"), text).unwrap();
        found.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        for text in [
            "[dependencies]\nserde.workspace = true\n",
            "[dependencies]\nserde = { workspace = true }\n",
            "[dev-dependencies]\nserde.workspace = true\n",
            "[target.'cfg(unix)'.dependencies]\nserde.workspace = true\n",
            // The reason of the one above is not its own.
            "[dependencies]\n# errors\nthiserror.workspace = true\n\nserde.workspace = true\n",
        ] {
            let found = findings(text);
            assert_eq!(
                found,
                ["Cargo.toml: serde: has no comment above it that says why it is needed"],
                "{text}"
            );
        }
    }

    #[test]
    fn a_reason_above_one_or_above_a_group_will_do() {
        let text = "[dependencies]\nkodo-store.workspace = true\n# JSON\nserde.workspace = true\n\
                    serde_json = { workspace = true, features = [\"x\"] }\n\n# errors\nthiserror.workspace = true\n";
        assert_eq!(findings(text), [""; 0]);
    }

    #[test]
    fn a_version_of_its_own_is_found() {
        for text in [
            "[dependencies]\n# JSON\nserde = \"1\"\n",
            "[dependencies]\n# JSON\nserde = { version = \"1\" }\n",
            "[dependencies]\n# JSON\nserde = { git = \"https://example.org/x\" }\n",
        ] {
            let found = findings(text);
            assert!(
                found.len() == 1 && found[0].contains("its own version"),
                "{text}: {found:?}"
            );
        }
    }
}
