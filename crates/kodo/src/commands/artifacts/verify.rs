//! `kodo artifacts verify`.

use std::collections::HashMap;
use std::process::ExitCode;

use kodo_contract::{ContentHash, StoredContent, decode};
use kodo_store::ArtifactRow;
use kodo_store::content::{ArtifactError, ArtifactStore, check, content_of};
use serde::Serialize;

use super::Artifacts;
use crate::cli::Format;
use crate::output;
use crate::say::counted;

/// Rows that are read at once.
const PAGE: i64 = 200;

/// Exit code where nothing is proven.
const UNPROVEN: u8 = 2;

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    artifacts: u64,
    /// Those of them whose content is stored.
    stored: u64,
    /// What they have in common counts once.
    objects: u64,
    object_bytes: u64,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    artifact: String,
    kind: String,
    sha256: String,
    finding: String,
}

pub(super) async fn run(artifacts: &Artifacts, format: Format) -> ExitCode {
    let report = match look(artifacts).await {
        Ok(report) => report,
        Err(error) => return unproven(&error),
    };
    let text = match format {
        Format::Json => output::json(&report),
        Format::Table => told(&report, &artifacts.store.place()),
    };
    if let Err(error) = output::print(&text) {
        return unproven(&error);
    }
    if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says why nothing is proven.
pub(super) fn unproven(error: &anyhow::Error) -> ExitCode {
    output::tell(format_args!("kodo: nothing is proven: {error:#}"));
    ExitCode::from(UNPROVEN)
}

async fn look(artifacts: &Artifacts) -> anyhow::Result<Report> {
    let mut report = Report::default();
    // What came of each object: a thousand runs may share one.
    let mut objects: HashMap<(ContentHash, u64), Option<String>> = HashMap::new();
    let mut last: Option<ArtifactRow> = None;
    loop {
        let page = artifacts.rows.artifacts_after(last.as_ref(), PAGE).await?;
        if page.is_empty() {
            break;
        }
        for row in &page {
            report.artifacts += 1;
            let finding = match &row.stored {
                None => in_row(row),
                Some((size, media_type)) => {
                    report.stored += 1;
                    match reference(row, *size, media_type) {
                        Err(finding) => Some(finding),
                        Ok(stored) => {
                            let key = (stored.sha256, stored.size);
                            if !objects.contains_key(&key) {
                                let found = in_store(&artifacts.store, &key.0, key.1).await?;
                                report.objects += 1;
                                report.object_bytes += key.1;
                                objects.insert(key.clone(), found);
                            }
                            objects[&key].clone()
                        }
                    }
                }
            };
            report.findings.extend(finding.map(|finding| Finding {
                artifact: format!("{}/{}/{}", row.run_id, row.step_id, row.index),
                kind: row.kind.clone(),
                sha256: row.sha256.clone(),
                finding,
            }));
        }
        last = page.into_iter().next_back();
    }
    // What workspaces and uploads are made of: no row of an artifact names it.
    let mut last: Option<ContentHash> = None;
    loop {
        let page = artifacts
            .rows
            .further_content_after(last.as_ref(), PAGE)
            .await?;
        let Some((next, _)) = page.last() else {
            return Ok(report);
        };
        last = Some(next.clone());
        for key in page {
            if objects.contains_key(&key) {
                continue;
            }
            let found = in_store(&artifacts.store, &key.0, key.1).await?;
            report.objects += 1;
            report.object_bytes += key.1;
            report.findings.extend(found.map(|finding| Finding {
                artifact: "-".to_owned(),
                kind: "workspace".to_owned(),
                sha256: key.0.as_str().to_owned(),
                finding,
            }));
        }
    }
}

/// What is wrong with content in its row.
fn in_row(row: &ArtifactRow) -> Option<String> {
    let found = row.inline_hash();
    if found != row.sha256 {
        return Some(format!("the hash of its row is {found}"));
    }
    let content = content_of(&row.kind, &row.inline);
    let said = row.inline["sha256"].as_str();
    let differs = content.name.is_some() && said != Some(content.sha256.as_str());
    differs.then(|| format!("the hash of its file is {}", content.sha256))
}

/// What the row refers to, where all of it says the same.
fn reference(row: &ArtifactRow, size: u64, media_type: &str) -> Result<StoredContent, String> {
    let stored: StoredContent = decode(&row.inline).map_err(|invalid| invalid.to_string())?;
    if !stored.stored
        || stored.size != size
        || stored.media_type != media_type
        || stored.sha256.as_str() != row.sha256
    {
        return Err("its reference says something else than its row".to_owned());
    }
    Ok(stored)
}

/// What is wrong with content in the store; an error where it could not be looked at.
async fn in_store(
    store: &dyn ArtifactStore,
    hash: &ContentHash,
    size: u64,
) -> Result<Option<String>, ArtifactError> {
    match check(store, hash, size).await {
        Ok(()) => Ok(None),
        Err(error @ (ArtifactError::Missing | ArtifactError::Damaged(_))) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn told(report: &Report, place: &str) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!(
            "{} ({}): {}\n",
            finding.artifact, finding.kind, finding.finding
        );
    }
    let verdict = match report.findings.len() {
        0 => "each is what its hash says".to_owned(),
        some => format!("{some} not whole"),
    };
    text + &format!(
        "artifacts: {} looked at, {} of them in {} ({} bytes) of {place}: {verdict}\n",
        report.artifacts,
        report.stored,
        counted(report.objects.cast_signed(), "objects"),
        report.object_bytes
    )
}
