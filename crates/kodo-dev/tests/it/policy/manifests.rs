//! Every dependency has the workspace's version and, above itself or its group, a comment that says why it is needed.

use super::{assert_clean, texts};

/// A group is lines without a blank line or a comment between them. Crates of this workspace need no reason.
fn judge(name: &str, manifest: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let (mut inside, mut reason) = (false, false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
            reason = false;
            if line.contains("dependencies.") {
                findings.push(format!("{name}: {line}: write a dependency on one line"));
            }
        } else if line.is_empty() || line.starts_with('#') {
            reason = !line.is_empty();
        } else if inside {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or(line);
            if !line.replace(' ', "").contains("workspace=true") {
                findings.push(format!("{name}: {dependency}: chooses its own version"));
            }
            let ours = dependency.starts_with("kodo-");
            if !reason && !ours {
                findings.push(format!("{name}: {dependency}: no comment says why"));
            }
        }
    }
    findings
}

#[test]
fn every_dependency_is_the_workspaces_and_has_its_reason() {
    let manifests = texts(|name| name.starts_with("crates/") && name.ends_with("/Cargo.toml"));
    let findings: Vec<String> = manifests
        .iter()
        .flat_map(|(name, text)| judge(name, text))
        .collect();
    assert_clean(&findings);
}

#[test]
fn a_dependency_without_a_reason_or_with_a_version_is_found() {
    for text in [
        "[dependencies]\nserde.workspace = true\n",
        "[dependencies]\nserde = { workspace = true }\n",
        "[dev-dependencies]\nserde.workspace = true\n",
        "[target.'cfg(unix)'.dependencies]\nserde.workspace = true\n",
        // The reason of the one above is not its own.
        "[dependencies]\n# errors\nthiserror.workspace = true\n\nserde.workspace = true\n",
        "[dependencies]\n# JSON\nserde = \"1\"\n",
        "[dependencies]\n# JSON\nserde = { version = \"1\" }\n",
        "[dependencies]\n# JSON\nserde = { git = \"https://example.org/x\" }\n",
        "[dependencies.serde]\nversion = \"1\"\n",
    ] {
        let found = judge("Cargo.toml", text);
        assert!(
            found.iter().any(|it| it.contains("serde")),
            "{text}: {found:?}"
        );
    }
    let sound = "[dependencies]\nkodo-store.workspace = true\n# JSON\nserde.workspace = true\n\
                 serde_json = { workspace = true, features = [\"x\"] }\n\n# errors\nthiserror.workspace = true\n\
                 \n[features]\ndefault = []\n";
    assert_clean(&judge("Cargo.toml", sound));
}
