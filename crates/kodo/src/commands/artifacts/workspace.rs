//! `kodo artifacts workspace`.

use std::process::ExitCode;
use std::sync::Arc;

use futures_util::TryStreamExt;
use kodo_contract::RunId;
use kodo_engine::workspace_of;
use kodo_store::content::tarball;

use super::Artifacts;
use crate::commands::NOT_FOUND;
use crate::output;

pub(super) async fn run(artifacts: &Artifacts, run: &str) -> anyhow::Result<ExitCode> {
    let snapshot = match RunId::parse(run) {
        Some(run) => workspace_of(&artifacts.rows, &artifacts.store, &run).await?,
        None => None,
    };
    let Some(snapshot) = snapshot else {
        output::tell(format_args!(
            "kodo: there is no run {run}, or it has no workspace"
        ));
        return Ok(ExitCode::from(NOT_FOUND));
    };
    let mut pieces = tarball(Arc::new(artifacts.store.clone()), snapshot);
    while let Some(piece) = pieces.try_next().await? {
        if !output::print(&piece)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}
