//! Who may depend on whom: `wrappers` in deny.toml, which cargo-deny checks. Here is what it does not see.

use std::collections::BTreeSet;

use toml::Table;

use super::{assert_clean, root, texts};

fn manifests() -> Vec<(String, Table)> {
    texts(|name| name.starts_with("crates/") && name.ends_with("/Cargo.toml"))
        .into_iter()
        .map(|(name, text)| (name, text.parse().unwrap()))
        .collect()
}

/// The tables of dependencies that are linked into what ships, those of a platform included.
fn shipped(manifest: &Table) -> Vec<&Table> {
    let platforms = manifest.get("target").and_then(|it| it.as_table());
    let platforms = platforms.into_iter().flat_map(Table::values);
    std::iter::once(manifest)
        .chain(platforms.filter_map(|it| it.as_table()))
        .flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")])
        .filter_map(|it| it?.as_table())
        .collect()
}

fn links_kodo_dev(manifest: &Table) -> bool {
    let mut tables = shipped(manifest).into_iter();
    tables.any(|table| table.contains_key("kodo-dev"))
}

#[test]
fn nothing_that_ships_is_linked_with_kodo_dev() {
    let findings: Vec<String> = manifests()
        .iter()
        .filter(|(_, manifest)| links_kodo_dev(manifest))
        .map(|(name, _)| format!("{name}: kodo-dev is for [dev-dependencies] only"))
        .collect();
    assert_clean(&findings);
    for (text, found) in [
        ("[dependencies]\nkodo-dev.workspace = true", true),
        ("[build-dependencies]\nkodo-dev.workspace = true", true),
        (
            "[target.'cfg(unix)'.dependencies]\nkodo-dev.workspace = true",
            true,
        ),
        ("[dev-dependencies]\nkodo-dev.workspace = true", false),
    ] {
        assert_eq!(links_kodo_dev(&text.parse().unwrap()), found, "{text}");
    }
}

#[test]
fn every_crate_but_the_binary_has_an_entry_in_deny_toml_that_says_who_may_know_it() {
    let crates: BTreeSet<String> = manifests()
        .iter()
        .map(|(_, manifest)| manifest["package"]["name"].as_str().unwrap().to_owned())
        .filter(|name| name != "kodo")
        .collect();
    let rules = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let rules: Table = rules.parse().unwrap();
    let ruled = rules["bans"]["deny"].as_array().unwrap();
    let ruled: BTreeSet<String> = ruled
        .iter()
        .map(|rule| rule["crate"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("kodo"))
        .collect();
    assert_eq!(crates, ruled);
}
