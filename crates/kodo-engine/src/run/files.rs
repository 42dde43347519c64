//! Reads the files that the earlier steps of a run left, from their rows and from the artifact store.

use bytes::Bytes;
use kodo_contract::{ContentHash, ErrorCode, RunId, StepId, ToolFile, ToolResult, decode};
use kodo_sandbox::Spool;
use kodo_store::content::{file_bytes, read_into};

use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::workspace::disk;

/// The files that a recorded step left, as its row lists them.
pub(crate) async fn files_of_step(
    ctx: &RunContext,
    run_id: &RunId,
    step_id: &StepId,
) -> Result<Vec<ToolFile>, RunFailure> {
    let output = ctx.recorded_output(run_id, step_id).await?;
    let result: ToolResult =
        decode(&output).map_err(RunFailure::invalid(ErrorCode::StoredResultInvalid))?;
    Ok(result.files)
}

/// Brings the content of such a file to this machine, and returns its hash.
pub(crate) async fn fetched(
    ctx: &RunContext,
    file: &ToolFile,
    to: &Spool,
) -> Result<ContentHash, RunFailure> {
    if file.stored != Some(true) {
        let content = inline_content(file)?;
        let kept = to.keep(&mut &content[..], content.len() as u64);
        return kept.map_err(disk);
    }
    let unreadable = || {
        let text = format!(
            "the step's row has no hash or no size for its stored file {:?}",
            file.name
        );
        RunFailure::new(ErrorCode::StoredResultInvalid, text)
    };
    let hash = ContentHash::parse(&file.sha256).ok_or_else(unreadable)?;
    let size = file.size.ok_or_else(unreadable)?;
    let (at, into) = (to.reserve(size), to.file());
    let read = || read_into(&*ctx.artifacts, &hash, size, None, &into, at);
    ctx.retry_artifacts(read).await?;
    to.add(hash.clone(), at..at + size);
    Ok(hash)
}

/// The content of a file whose row holds it.
pub(crate) fn inline_content(file: &ToolFile) -> Result<Bytes, RunFailure> {
    let invalid = |what: &str| {
        let text = format!("the file {:?} {what}", file.name);
        RunFailure::new(ErrorCode::ToolResultInvalid, text)
    };
    let content = file
        .content
        .as_ref()
        .ok_or_else(|| invalid("has no content"))?;
    // `base64` is the only encoding that the schema allows.
    let bytes = file_bytes(content, file.encoding.as_deref());
    bytes
        .map(Bytes::from)
        .ok_or_else(|| invalid("is no base64"))
}
