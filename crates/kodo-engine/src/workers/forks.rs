//! Forks that the engine's clients made of the workflows of runs. Each becomes a run of its own: the engine alone would
//! carry it out under the id of the run that it was forked from.

use kodo_contract::{RunId, StepId, WorkflowId};
use kodo_store::{NewFork, StoreError};

use crate::workers::error::WorkerError;
use crate::workers::shared::Shared;

/// Writes the run of each fork that has no row in `app.runs` yet, also of a fork that was cancelled before it began.
pub(crate) async fn adopt_forks(shared: &Shared) -> Result<(), WorkerError> {
    let forks = shared.system_db.forks().await?;
    if forks.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = forks.iter().map(String::as_str).collect();
    for workflow in shared.ctx.store.without_run(&ids).await? {
        adopt(shared, &workflow).await?;
    }
    Ok(())
}

/// Makes a run of a fork. Returns false if the workflow is no fork of a run.
pub(crate) async fn adopt(shared: &Shared, workflow: &str) -> Result<bool, StoreError> {
    let source = shared.system_db.forked_from(workflow).await?;
    let source = source.and_then(|id| WorkflowId::parse(&id));
    let Some((source, workflow_id)) = source.zip(WorkflowId::parse(workflow)) else {
        return Ok(false);
    };
    let checkpoints = shared.system_db.checkpoints(workflow).await?;
    let good = checkpoints.iter().filter(|checkpoint| !checkpoint.failed);
    let steps: Vec<&str> = good.map(|checkpoint| checkpoint.name.as_str()).collect();
    let from_step = first_missing(&steps);
    let id = RunId::generate();
    let fork = NewFork {
        id: &id,
        workflow_id: &workflow_id,
        source: &source,
        steps: &steps,
        from_step: from_step.as_str(),
    };
    let mut adopted = shared.ctx.store.adopt_fork(&fork).await?;
    if !adopted && Box::pin(adopt(shared, source.as_str())).await? {
        // It was forked from a fork.
        adopted = shared.ctx.store.adopt_fork(&fork).await?;
    }
    if adopted {
        tracing::info!(workflow.id = workflow, source = %source, %from_step, "a fork is a run of its own");
    }
    Ok(adopted)
}

/// The first step in the order of a run that is not among these.
fn first_missing(steps: &[&str]) -> StepId {
    let calls = (0..=steps.len()).map(StepId::tool);
    let mut all = std::iter::once(StepId::plan()).chain(calls);
    let missing = all.find(|step| !steps.contains(&step.as_str()));
    // There are more candidates than steps.
    missing.unwrap_or_else(StepId::plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_begins_at_the_first_step_that_it_did_not_take_over() {
        let from = |steps: &[&str]| first_missing(steps).to_string();
        assert_eq!(from(&[]), "plan");
        assert_eq!(from(&["plan"]), "tool-001");
        assert_eq!(from(&["tool-001", "plan"]), "tool-002");
        assert_eq!(from(&["plan", "tool-002"]), "tool-001");
    }
}
