//! `kodo prove` as a judge of its own: by the invariants of the product, where verdict.rs goes by what clients were told.

use std::path::Path;

use anyhow::Context;
use kodo_dev::harness::Databases;
use serde_json::Value;
use tokio::process::Command;

use super::verdict::Check;

/// Holds the rows against every invariant, with the services still up.
pub(super) async fn prove(program: &Path, databases: &Databases) -> anyhow::Result<Check> {
    let output = Command::new(program)
        .args(["prove", "--json"])
        .envs(databases.environment())
        .kill_on_drop(true)
        .output()
        .await
        .context("kodo prove")?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("kodo prove: {}", String::from_utf8_lossy(&output.stderr)))?;
    let invariants = said["invariants"].as_array().map_or(&[][..], Vec::as_slice);
    let broken = invariants
        .iter()
        .filter(|invariant| invariant["holds"] != true)
        .map(|invariant| format!("{}: {}", invariant["name"], invariant["violations"]));
    let mut broken: Vec<String> = broken.collect();
    if broken.is_empty() && !output.status.success() {
        broken.push(format!("kodo prove ended with {}", output.status));
    }
    Ok(Check {
        promise: "every invariant of kodo prove holds, with the services up",
        looked_at: invariants.len(),
        broken,
    })
}
