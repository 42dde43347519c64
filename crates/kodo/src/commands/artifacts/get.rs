//! `kodo artifacts get`.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use futures_util::TryStreamExt;
use kodo_contract::{ContentHash, canonical_json};
use kodo_store::Found;
use kodo_store::content::{content_of, read};

use super::Artifacts;
use crate::commands::NOT_FOUND;
use crate::output;

pub(super) async fn run(artifacts: &Artifacts, sha256: &str) -> anyhow::Result<ExitCode> {
    let hash = ContentHash::parse(sha256)
        .with_context(|| format!("{sha256} is no sha256: 64 lower-case hexadecimal digits are"))?;
    let inline = match artifacts.rows.artifact_by_hash(&hash).await? {
        None => {
            output::tell(format_args!("kodo: no artifact has the content {hash}"));
            return Ok(ExitCode::from(NOT_FOUND));
        }
        Some(Found::Row(row)) if let Some((size, _)) = row.stored => {
            return stored(artifacts, &hash, size).await;
        }
        Some(Found::Upload(size)) => return stored(artifacts, &hash, size).await,
        Some(Found::Row(row)) => canonical_json(&row.inline).into_bytes(),
        Some(Found::File(row)) => content_of(&row.kind, &row.inline).bytes,
    };
    ensure!(
        ContentHash::of(&inline) == hash,
        "a row says that it has {hash}, and has something else (see kodo artifacts verify)"
    );
    output::print(&inline)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes content that is in the store.
async fn stored(artifacts: &Artifacts, hash: &ContentHash, size: u64) -> anyhow::Result<ExitCode> {
    let mut pieces = read(&artifacts.store, hash, size, None).await?;
    while let Some(piece) = pieces.try_next().await? {
        if !output::print(&piece)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}
