//! Reads the files that the earlier steps of a run left, from their rows and from the artifact store.

use bytes::Bytes;
use kodo_contract::{ContentHash, ErrorCode, RunId, StepId, ToolFile, ToolResult, decode};
use kodo_store::content::{file_bytes, read_whole};

use crate::failure::RunFailure;
use crate::run::context::RunContext;

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

/// The content of such a file.
pub(crate) async fn content(ctx: &RunContext, file: &ToolFile) -> Result<Bytes, RunFailure> {
    if file.stored != Some(true) {
        return inline_content(file);
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
    ctx.retry_artifacts(|| read_whole(&*ctx.artifacts, &hash, size))
        .await
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
