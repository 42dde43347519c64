//! The workspace that the first calls of a run find: the archive of `inputs.workspace`, with `inputs.files` over it.

use std::io;
use std::sync::Arc;

use kodo_contract::{ContentHash, ErrorCode, Intent, Node, NodeKind, Snapshot, Tree};
use kodo_sandbox::Spool;
use kodo_store::Found;
use kodo_store::content::{ArtifactError, UnpackError, content_of, read_into, unpack};
use time::OffsetDateTime;

use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::inputs::Inputs;
use crate::run::retry::{artifact_failure, retry_store};
use crate::run::workspace::{Saved, disk, saved, spool};

/// The archive that an intent names; `None` if it names none.
///
/// # Errors
/// `workspace_invalid`, if what it says is no hash.
pub(crate) fn archive_of(intent: &Intent) -> Result<Option<ContentHash>, RunFailure> {
    let Some(named) = intent.inputs.get("workspace").filter(|it| !it.is_null()) else {
        return Ok(None);
    };
    let hash = named.as_str().and_then(ContentHash::parse);
    hash.map(Some).ok_or_else(|| {
        invalid("it must be the sha256 of an archive among the artifacts, 64 lower-case hexadecimal digits")
    })
}

fn invalid(reason: &str) -> RunFailure {
    let text = format!("inputs.workspace is invalid: {reason}");
    RunFailure::new(ErrorCode::WorkspaceInvalid, text)
}

/// The workspace that the run begins with.
///
/// # Errors
/// `workspace_invalid`, `workspace_too_large`, `artifact_missing`, or what the artifact store answers.
pub(crate) async fn begin(
    ctx: &RunContext,
    archive: Option<&ContentHash>,
    inputs: &Inputs,
    now: OffsetDateTime,
) -> Result<Saved, RunFailure> {
    let content = spool(ctx)?;
    let modified = i64::try_from(now.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    let mut tree = match archive {
        None => Tree::default(),
        Some(hash) => unpacked(ctx, hash, &content, modified).await?,
    };
    for file in inputs.files() {
        let size = file.content.len() as u64;
        let sha256 = content
            .keep(&mut file.content.as_slice(), size)
            .map_err(disk)?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        let node = Node::new(NodeKind::File { sha256, size }, mode, modified);
        tree.put(file.name.as_str().into(), node);
    }
    tree.check(&ctx.bounds)
        .map_err(|fault| RunFailure::new(ErrorCode::WorkspaceTooLarge, fault.to_string()))?;
    saved(Snapshot::default(), tree, None, content).await
}

async fn unpacked(
    ctx: &RunContext,
    hash: &ContentHash,
    content: &Arc<Spool>,
    modified: i64,
) -> Result<Tree, RunFailure> {
    let found = retry_store(|| ctx.store.artifact_by_hash(hash)).await?;
    let size = match found {
        Some(Found::Upload(size)) => Some(size),
        Some(Found::Row(row)) => row.stored.map(|(size, _)| size),
        Some(Found::File(row)) => {
            let bytes = content_of(&row.kind, &row.inline).bytes;
            content
                .keep(&mut bytes.as_slice(), bytes.len() as u64)
                .map_err(disk)?;
            None
        }
        None => {
            let text = format!("no artifact has the content {hash}");
            return Err(invalid(&text));
        }
    };
    if let Some(size) = size {
        let at = content.reserve(size);
        let file = content.file();
        let read = || read_into(&*ctx.artifacts, hash, size, None, &file, at);
        ctx.retry_artifacts(read).await?;
        content.add(hash.clone(), at..at + size);
    }
    let (content, hash, bounds) = (Arc::clone(content), hash.clone(), ctx.bounds);
    let work = move || {
        let archive = content
            .open(&hash)
            .ok_or_else(|| artifact_failure(&ArtifactError::Missing))?;
        unpack(archive, &bounds, modified, |from, size| {
            content.keep(from, size)
        })
        .map_err(refused)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| disk(io::Error::other(error)))?
}

fn refused(error: UnpackError) -> RunFailure {
    match error {
        UnpackError::Kept(error) => disk(error),
        UnpackError::Tree(fault) if fault.is_limit() => RunFailure::new(
            ErrorCode::WorkspaceTooLarge,
            format!("inputs.workspace: {fault}"),
        ),
        long @ UnpackError::TooLong { .. } => RunFailure::new(
            ErrorCode::WorkspaceTooLarge,
            format!("inputs.workspace: {long}"),
        ),
        other => invalid(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use kodo_contract::decode;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_archive_is_named_by_its_hash_and_nothing_else() {
        let archive = |workspace: Value| {
            let intent =
                json!({"goal": "g", "inputs": {"workspace": workspace}, "constraints": {}});
            archive_of(&decode(&intent).unwrap())
        };
        let hash = ContentHash::of(b"x");
        assert_eq!(archive(json!(hash)).unwrap(), Some(hash));
        assert_eq!(archive(Value::Null).unwrap(), None);
        for bad in [
            json!("abc"),
            json!({"sha256": "abc"}),
            json!(1),
            json!("A".repeat(64)),
        ] {
            assert_eq!(archive(bad).unwrap_err().code, "workspace_invalid");
        }
    }
}
