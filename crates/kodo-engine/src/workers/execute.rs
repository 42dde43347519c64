//! One execution of a run: it takes a place in this process and the run's claim, carries the run out, and reports its
//! end.
//!
//! The engine begins an execution for every row that its queue hands out, and its clients put rows there: a run that is
//! resumed while it runs is handed out a second time. The claim decides. A second execution waits until the first has
//! ended, and goes on only if the run has not ended with it.

use std::collections::HashSet;
use std::time::Duration;

use kodo_contract::{ErrorCode, MAX_ID_BYTES, WorkflowId};
use kodo_store::{Claim, ClaimedRun};

use crate::dispatch::dispatcher::Execution;
use crate::failpoint;
use crate::failure::RunFailure;
use crate::run::durable::superseded;
use crate::run::guard::guard;
use crate::run::retry::retry_store;
use crate::run::workflow::{self as intent_run, RunOutput};
use crate::settle::settler::{ClaimOver, Settler};
use crate::workers::forks::adopt;
use crate::workers::shared::Shared;

/// How often an execution that was refused asks for the claim again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Tells the settler that the execution is over, however it ends.
struct Held<'a> {
    settler: &'a Settler,
    claim: ClaimOver,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.settler.left(self.claim.clone());
    }
}

/// The body of the workflow of a run, under the executor id of this worker.
pub(crate) async fn execute(shared: &Shared, worker: &str) -> dbos::Result<RunOutput, RunFailure> {
    let id = dbos::workflow_id().unwrap_or_default();
    let Some(workflow) = WorkflowId::parse(&id) else {
        let text = format!(
            "no run can belong to this workflow: its id has {} bytes, and 1 to {MAX_ID_BYTES} without U+0000 are \
             accepted; fork again under a shorter id",
            id.len()
        );
        tracing::warn!(workflow.id = id, reason = text, "a workflow is refused");
        return Err(RunFailure::new(ErrorCode::RunMissing, text).into());
    };
    let mut execution = shared.dispatcher.begin(workflow.as_str());
    let recovered = !execution.is_started_here();
    if recovered {
        failpoint("recover:before");
        open_again(shared, &workflow).await;
    }
    let claimed = match claim(shared, worker, &workflow, &mut execution).await {
        Ok(Some(claimed)) => claimed,
        Ok(None) => return Err(superseded()),
        Err(failure) if failure.code == ErrorCode::RunMissing.as_str() => {
            tracing::warn!(workflow.id = %workflow, reason = %failure, "a workflow is refused");
            return Err(failure.into());
        }
        Err(failure) => {
            // An execution without a claim must not decide how the run ends: another one may be under way.
            tracing::warn!(workflow.id = %workflow, error = %failure, "could not take the run's claim; left to the sweep");
            return Err(superseded());
        }
    };
    let held = Held {
        settler: &shared.settler,
        claim: over(&workflow, &claimed),
    };
    failpoint("claim:committed");
    let mut checkpointed = HashSet::new();
    if recovered {
        let names = || shared.system_db.checkpoints(workflow.as_str());
        checkpointed.extend(retry_store(names).await?.into_iter().map(|it| it.name));
        failpoint("recover:committed");
    }
    tracing::info!(run.id = %claimed.id, recovered, epoch = claimed.epoch, "run started");
    let outcome = guard(intent_run::run(
        &shared.ctx,
        &execution,
        claimed,
        &checkpointed,
    ))
    .await;
    drop(held);
    drop(execution);
    if recovered {
        // Nothing waits for a recovered run, so it reports its end itself.
        shared.settler.ended(workflow.into_string());
    }
    outcome
}

fn over(workflow: &WorkflowId, claimed: &ClaimedRun) -> ClaimOver {
    ClaimOver {
        workflow_id: workflow.to_string(),
        run_id: claimed.id.clone(),
        epoch: claimed.epoch,
    }
}

/// Says that a run which was over runs again, because its workflow was resumed through the engine: also while it waits
/// for room. If the status cannot be changed, the run goes on, and its status is settled at its end.
async fn open_again(shared: &Shared, workflow: &WorkflowId) {
    match retry_store(|| shared.ctx.store.reopen(workflow)).await {
        Ok(true) => tracing::info!(workflow.id = %workflow, "the run is open again"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(workflow.id = %workflow, %error, "could not open the run again");
        }
    }
}

/// Takes a place and the claim. Returns `None` if the run has ended, was deleted, or is left to another body that waits
/// here already.
async fn claim(
    shared: &Shared,
    worker: &str,
    workflow: &WorkflowId,
    execution: &mut Execution,
) -> Result<Option<ClaimedRun>, RunFailure> {
    let mut waited = false;
    loop {
        if shared.ctx.drain.has_begun() {
            // The engine's shutdown ends it here, and its row stays for the next worker.
            std::future::pending::<()>().await;
        }
        execution.take_place().await;
        let asked = || shared.ctx.store.claim_run(workflow, worker, &execution.id);
        match retry_store(asked).await? {
            Claim::Taken(claimed) => {
                // Whoever held the claim has recorded the outcome before it was ended, if there is one.
                if waited && !is_pending(shared, workflow).await? {
                    shared.settler.left(over(workflow, &claimed));
                    shared.settler.ended(workflow.to_string());
                    return Ok(None);
                }
                return Ok(Some(claimed));
            }
            // A client of the engine made the workflow: by a fork, which becomes a run.
            Claim::NoRun if retry_store(|| adopt(shared, workflow.as_str())).await? => continue,
            Claim::NoRun => {
                let text = format!(
                    "no run of workflow {workflow} is in the database: a run begins with POST /intents/:id/run or as a \
                     fork of one, and a client of the engine cannot enqueue it"
                );
                return Err(RunFailure::new(ErrorCode::RunMissing, text));
            }
            Claim::Held => {}
        }
        if !waited {
            tracing::info!(workflow.id = %workflow, "another execution of the run is under way; this one waits for its end");
            waited = true;
        }
        if !execution.wait_for_other() {
            return Ok(None);
        }
        tokio::time::sleep(ASK_AGAIN).await;
        if !is_pending(shared, workflow).await? {
            return Ok(None);
        }
    }
}

/// Whether the engine still has the workflow as one that is being carried out.
async fn is_pending(shared: &Shared, workflow: &WorkflowId) -> Result<bool, RunFailure> {
    let ids = [workflow.as_str()];
    let rows = retry_store(|| shared.system_db.workflows(&ids)).await?;
    Ok(rows.iter().any(|row| row.status == "PENDING"))
}
