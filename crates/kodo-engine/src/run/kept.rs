//! The workspace of a run as the steps have left it that are recorded by now.

use std::collections::HashMap;

use kodo_contract::{Branch, Conflict, ErrorCode, RunId, Snapshot, SnapshotRef, StepId, merge};
use kodo_store::content::{ArtifactError, ArtifactStore, read_whole};
use kodo_store::{Store, StoreError};

use crate::failure::RunFailure;
use crate::run::inputs::predecessors;
use crate::run::plan::{recorded_plan, recorded_workspace};
use crate::run::workspace::read_snapshot;

/// Why a run's workspace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The product database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The artifact store did not answer, or does not have it any more.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// Calls that ran in parallel left one path differently, and no call came after them.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Rows that this version cannot read.
    #[error(transparent)]
    Unreadable(#[from] RunFailure),
}

/// The workspace of a run after the last of its recorded steps: what a call would find that depends on all of them. `None`
/// if there is no such run, or if it has no workspace: nothing is recorded of it yet, or no program ran in it.
///
/// # Errors
/// [`WorkspaceError`].
pub async fn workspace_of(
    store: &Store,
    artifacts: &dyn ArtifactStore,
    run_id: &RunId,
) -> Result<Option<Snapshot>, WorkspaceError> {
    let Some(planned) = store.step_output(run_id, &StepId::plan()).await? else {
        return Ok(None);
    };
    let Some(base) = recorded_workspace(&planned)? else {
        return Ok(None);
    };
    let dependencies = recorded_plan(planned)?
        .dependencies()
        .map_err(|fault| RunFailure::new(ErrorCode::StoredPlanInvalid, fault.to_string()))?;
    let before = predecessors(&dependencies);
    let left: HashMap<String, SnapshotRef> =
        store.workspaces_of(run_id).await?.into_iter().collect();
    let left: Vec<(usize, &SnapshotRef)> = (0..before.len())
        .filter_map(|index| Some((index, left.get(StepId::tool(index).as_str())?)))
        .collect();
    let mut branches = Vec::new();
    for (index, reference) in &left {
        // What a later one has seen is in that one.
        if left.iter().any(|(other, _)| before[*other].contains(index)) {
            continue;
        }
        let knows = before[*index].iter().chain([index]);
        branches.push(Branch {
            end: load(artifacts, reference).await?,
            knows: knows.filter_map(|it| u32::try_from(*it).ok()).collect(),
        });
    }
    if branches.is_empty() {
        return Ok(Some(load(artifacts, &base).await?));
    }
    Ok(Some(merge(branches)?))
}

async fn load(
    artifacts: &dyn ArtifactStore,
    reference: &SnapshotRef,
) -> Result<Snapshot, WorkspaceError> {
    let SnapshotRef { sha256, size, .. } = reference.clone();
    let json = read_whole(artifacts, &sha256, size).await?;
    // A manifest can be long.
    let read = tokio::task::spawn_blocking(move || read_snapshot(&json, &sha256));
    let read = read.await.map_err(|error| {
        RunFailure::new(
            ErrorCode::EngineError,
            format!("reading a workspace: {error}"),
        )
    })?;
    Ok(read?)
}
