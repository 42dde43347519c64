//! Reads the files that the earlier steps of a run left, from their rows and from the artifact store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::TryStreamExt;
use kodo_contract::{ContentHash, ErrorCode, RunId, StepId, ToolFile, ToolResult, decode};
use kodo_store::content::read;

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
    ctx.retry_artifacts(|| async {
        let chunks = read(&*ctx.artifacts, &hash, size, None).await?;
        let chunks: Vec<Bytes> = chunks.try_collect().await?;
        Ok(Bytes::from(chunks.concat()))
    })
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
    match file.encoding.as_deref() {
        None => Ok(Bytes::copy_from_slice(content.as_bytes())),
        // `base64` is the only encoding that the schema allows.
        Some(_) => match STANDARD.decode(content) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(invalid("is no base64")),
        },
    }
}
