//! `kodo artifacts gc`.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::TryStreamExt;
use kodo_store::content::ArtifactStore;
use serde::Serialize;

use super::Artifacts;
use crate::cli::Format;
use crate::output;
use crate::say::counted;

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    objects: u64,
    /// Uploads that no intent names, and that are forgotten.
    uploads: u64,
    /// Of the objects: a run names it, or is about to.
    named: u64,
    /// Of those: written within the grace period.
    young: u64,
    /// The others.
    removed: u64,
    removed_bytes: u64,
    /// Files that were being written when their writer died.
    half_written: u64,
}

pub(super) async fn run(
    artifacts: &Artifacts,
    dry_run: bool,
    grace: u32,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let older_than = kodo_contract::now() - Duration::from_secs(grace.into());
    let mut report = Report {
        dry_run,
        ..Report::default()
    };
    // First: content of an upload that is forgotten here goes with it.
    report.uploads = artifacts.rows.forget_uploads(older_than, dry_run).await?;
    let mut listing = artifacts.store.list();
    while let Some(listed) = listing.try_next().await? {
        report.objects += 1;
        if listed.info.written_at > older_than {
            report.young += 1;
            continue;
        }
        // From here on nobody names it who has not done so; what was there to be seen has been seen.
        let Some(unnamed) = artifacts.rows.claim_unnamed(&listed.hash).await? else {
            report.named += 1;
            continue;
        };
        if !dry_run {
            artifacts.store.delete(&listed.hash).await?;
        }
        unnamed.release().await?;
        report.removed += 1;
        report.removed_bytes += listed.info.size;
    }
    report.half_written = artifacts.store.sweep(older_than, dry_run).await?;
    let text = match format {
        Format::Json => output::json(&report),
        Format::Table => told(&report, &artifacts.store.place()),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn told(report: &Report, place: &str) -> String {
    let would = if report.dry_run { "would be " } else { "" };
    format!(
        "artifacts: {} in {place}: {} named by runs, {} written lately, {} ({} bytes) {would}removed; {} {would}removed; {} {would}forgotten\n",
        counted(report.objects.cast_signed(), "objects"),
        report.named,
        report.young,
        report.removed,
        report.removed_bytes,
        counted(report.half_written.cast_signed(), "half-written files"),
        counted(report.uploads.cast_signed(), "uploads")
    )
}
