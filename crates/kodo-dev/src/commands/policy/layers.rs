//! Every crate depends on and names only what its layer may. The map is `[workspace.metadata.layers]` in the root
//! manifest; what crates really do is taken from `cargo metadata` and from the parsed sources.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};
use serde::Deserialize;

use super::uses::{self, Use};
use super::{Finding, Verdict};
use crate::repository::Repository;

/// The map.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    /// Each crate of the workspace, and the ones of the workspace that it may know.
    crates: BTreeMap<String, Vec<String>>,
    /// Crates from outside that only some may name: for each such crate, the folders (below `crates`) whose sources may.
    reserved: BTreeMap<String, Vec<String>>,
}

pub(super) fn check(repository: &Repository) -> anyhow::Result<Verdict> {
    let metadata = MetadataCommand::new()
        .manifest_path(repository.root().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .no_deps()
        .other_options(["--offline".to_owned(), "--locked".to_owned()])
        .exec()
        .context("cargo metadata")?;
    let map = metadata
        .workspace_metadata
        .get("layers")
        .context("Cargo.toml has no [workspace.metadata.layers]")?;
    let map = Map::deserialize(map).context("[workspace.metadata.layers] in Cargo.toml")?;
    let edges = edges(&metadata);

    let mut findings = judge_edges(&map, &edges);
    let mut looked_at = 0;
    for file in repository.files()? {
        if !(file.starts_with("crates") && file.extension().is_some_and(|name| name == "rs")) {
            continue;
        }
        let text = std::fs::read_to_string(repository.root().join(&file))
            .with_context(|| file.display().to_string())?;
        looked_at += 1;
        let name = file.display().to_string();
        match uses::of(&text) {
            Ok(uses) => findings.extend(judge_uses(&map, &name, &uses)),
            Err(error) => findings.push(Finding::new(name, format!("does not parse: {error}"))),
        }
    }
    Ok(Verdict {
        looked_at: format!("{} crates and {looked_at} source files", edges.len()),
        findings,
    })
}

/// What each crate of the workspace depends on, for whatever purpose.
fn edges(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    metadata
        .workspace_packages()
        .iter()
        .map(|package| {
            let names = package
                .dependencies
                .iter()
                .map(|dependency| dependency.name.clone());
            (package.name.to_string(), names.collect())
        })
        .collect()
}

fn judge_edges(map: &Map, edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, dependencies) in edges {
        let Some(may) = map.crates.get(name) else {
            findings.push(Finding::new(
                name,
                "is not in [workspace.metadata.layers.crates]: say which crates it may know",
            ));
            continue;
        };
        for dependency in dependencies {
            if edges.contains_key(dependency) && !may.contains(dependency) {
                findings.push(Finding::new(
                    name,
                    format!("depends on {dependency}, which its layer may not know"),
                ));
            }
            if let Some(places) = map.reserved.get(dependency)
                && !places
                    .iter()
                    .any(|place| place.split('/').next() == Some(name))
            {
                findings.push(Finding::new(
                    name,
                    format!(
                        "depends on {dependency}, which is for {} only",
                        places.join(", ")
                    ),
                ));
            }
        }
    }
    // A map that speaks of what is gone would be believed.
    for (name, may) in &map.crates {
        for gone in std::iter::once(name)
            .chain(may)
            .filter(|name| !edges.contains_key(*name))
        {
            findings.push(Finding::new(
                name,
                format!("the layer map names {gone}, which is no crate here"),
            ));
        }
    }
    for (name, places) in &map.reserved {
        for place in places {
            let owner = place.split('/').next().unwrap_or_default();
            if !edges
                .get(owner)
                .is_some_and(|dependencies| dependencies.contains(name))
            {
                findings.push(Finding::new(
                    name,
                    format!("is reserved for {place}, which does not depend on it"),
                ));
            }
        }
    }
    findings
}

/// `file` is `crates/kodo-store/src/pool.rs`.
fn judge_uses(map: &Map, file: &str, uses: &[Use]) -> Vec<Finding> {
    let below = file.strip_prefix("crates/").unwrap_or(file);
    let owner = below.split('/').next().unwrap_or_default();
    let mut findings = Vec::new();
    for used in uses {
        let place = || format!("{file}:{}", used.line);
        // In a path, hyphens are underscores.
        let reserved = map
            .reserved
            .iter()
            .find(|(name, _)| name.replace('-', "_") == used.name);
        if let Some((name, places)) = reserved {
            if !places.iter().any(|allowed| is_below(below, allowed)) {
                findings.push(Finding::new(
                    place(),
                    format!("names {name}, which is for {} only", places.join(", ")),
                ));
            } else if used.passed_on {
                findings.push(Finding::new(
                    place(),
                    format!("passes {name} on: whoever knows this crate could use it unseen"),
                ));
            }
        }
        let ours = map
            .crates
            .keys()
            .find(|name| name.replace('-', "_") == used.name);
        if let Some(name) = ours
            && name != owner
            && !map.crates.get(owner).is_some_and(|may| may.contains(name))
        {
            findings.push(Finding::new(
                place(),
                format!("names {name}, which its layer may not know"),
            ));
        }
    }
    findings
}

/// Whether a file is the allowed place, or below it.
fn is_below(file: &str, place: &str) -> bool {
    file.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        serde_json::from_value(serde_json::json!({
            "crates": {"kodo-contract": [], "kodo-store": ["kodo-contract"], "kodo-server": ["kodo-contract", "kodo-store"]},
            "reserved": {"axum": ["kodo-server"], "sqlx": ["kodo-store", "kodo-server/src/demo", "kodo-server/tests"]},
        }))
        .unwrap()
    }

    fn edges(list: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let mut edges: BTreeMap<String, BTreeSet<String>> = [
            ("kodo-contract", &["serde"][..]),
            ("kodo-store", &["kodo-contract", "sqlx"]),
            ("kodo-server", &["kodo-store", "axum", "sqlx"]),
        ]
        .iter()
        .chain(list)
        .map(|(name, names)| {
            (
                (*name).to_owned(),
                names.iter().map(|name| (*name).to_owned()).collect(),
            )
        })
        .collect();
        edges.retain(|_, names| !names.contains("(gone)"));
        edges
    }

    fn of_edges(list: &[(&str, &[&str])]) -> Vec<String> {
        judge_edges(&map(), &edges(list))
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn a_dependency_against_the_order_of_the_layers_is_found() {
        assert_eq!(of_edges(&[]), [""; 0]);
        assert_eq!(
            of_edges(&[("kodo-contract", &["kodo-store"])]),
            ["kodo-contract: depends on kodo-store, which its layer may not know"]
        );
        assert_eq!(
            of_edges(&[("kodo-store", &["sqlx", "axum"])]),
            ["kodo-store: depends on axum, which is for kodo-server only"]
        );
    }

    #[test]
    fn a_new_crate_must_be_put_on_the_map_and_a_gone_one_taken_off() {
        assert_eq!(
            of_edges(&[("kodo-new", &[])]),
            [
                "kodo-new: is not in [workspace.metadata.layers.crates]: say which crates it may know"
            ]
        );
        let found = of_edges(&[("kodo-contract", &["(gone)"])]);
        assert!(
            found.contains(
                &"kodo-contract: the layer map names kodo-contract, which is no crate here"
                    .to_owned()
            ),
            "{found:?}"
        );
        assert_eq!(
            of_edges(&[("kodo-server", &["sqlx"])]),
            ["axum: is reserved for kodo-server, which does not depend on it"]
        );
    }

    fn of_source(file: &str, text: &str) -> Vec<String> {
        let uses = uses::of(text).unwrap();
        judge_uses(&map(), file, &uses)
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn naming_a_crate_of_another_layer_is_found_wherever_it_is_named() {
        for text in [
            "use axum::Router;",
            "use ::axum::Router as Other;",
            "fn f() -> axum::Router { todo!() }",
            "fn f() { println!(\"{}\", axum::VERSION); }",
            "extern crate axum as web;",
            "mod inner { pub(crate) use {std::fmt, axum::{Router, routing::get}}; }",
            "#[axum::debug_handler] fn f() {}",
        ] {
            let found = of_source("crates/kodo-store/src/pool.rs", text);
            assert_eq!(
                found,
                ["crates/kodo-store/src/pool.rs:1: names axum, which is for kodo-server only"],
                "{text}"
            );
            assert_eq!(
                of_source("crates/kodo-server/src/routes.rs", text),
                [""; 0],
                "{text}"
            );
        }
        assert_eq!(
            of_source(
                "crates/kodo-contract/tests/x.rs",
                "\nuse kodo_store::Store;"
            ),
            ["crates/kodo-contract/tests/x.rs:2: names kodo-store, which its layer may not know"]
        );
    }

    #[test]
    fn a_place_within_a_crate_is_meant_as_it_says() {
        let text = "use sqlx::PgPool;";
        for (file, allowed) in [
            ("crates/kodo-store/src/runs.rs", true),
            ("crates/kodo-server/src/demo.rs", true),
            ("crates/kodo-server/src/demo/crash.rs", true),
            ("crates/kodo-server/tests/it/rows.rs", true),
            ("crates/kodo-server/src/demonstration.rs", false),
            ("crates/kodo-server/src/runs.rs", false),
        ] {
            assert_eq!(of_source(file, text).is_empty(), allowed, "{file}");
        }
    }

    #[test]
    fn a_reserved_crate_is_not_passed_on_to_others() {
        assert_eq!(
            of_source("crates/kodo-store/src/lib.rs", "pub use sqlx::PgPool;"),
            [
                "crates/kodo-store/src/lib.rs:1: passes sqlx on: whoever knows this crate could use it unseen"
            ]
        );
    }

    #[test]
    fn a_local_name_that_reads_like_a_crate_is_none() {
        for text in [
            "fn f(axum: u8) -> u8 { axum }",
            "struct S { axum: u8 }",
            "// use axum::Router;\nconst TEXT: &str = \"axum::Router\";",
            "use crate::axum_like::x;",
        ] {
            assert_eq!(
                of_source("crates/kodo-store/src/pool.rs", text),
                [""; 0],
                "{text}"
            );
        }
    }
}
