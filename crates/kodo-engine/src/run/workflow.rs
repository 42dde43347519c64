//! The intent workflow: load and validate, plan, execute each tool call, finish.
//!
//! The order in which it makes its steps is its shape. A change of that order is a new workflow under a new name
//! beside this one, kept until no old run is left: a run resumes by position, and must find the steps that it left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kodo_contract::{ErrorCode, Plan, RunId, StepId};
use kodo_planner::Planner;
use kodo_sandbox::{Limits, Sandbox, SecretFolder};
use kodo_store::Store;
use kodo_store::content::ArtifactStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OnceCell, Semaphore};

use crate::drain::Drain;
use crate::failure::RunFailure;
use crate::run::durable::{durable, weather};
use crate::run::inputs::before;
use crate::run::parallel::run_in_parallel;
use crate::run::plan::{Planned, plan, recorded_plan};
use crate::run::tool_call::{Executed, ToolStep};

/// Name of the workflow in `dbos.workflow_status`.
pub(crate) const WORKFLOW: &str = "intent_run";

/// Input of the workflow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunInput {
    /// The run; the workflow's id is derived from it.
    pub(crate) run_id: RunId,
}

/// Output of the workflow: what it did, small enough for a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunOutput {
    /// How many tool calls were executed.
    pub(crate) tool_calls: usize,
}

/// What the workflow works with.
pub(crate) struct Workshop {
    pub(crate) store: Store,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    /// How long a step waits for the artifact store before its run fails.
    pub(crate) artifact_patience: Duration,
    pub(crate) planner: Arc<dyn Planner>,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// Where jobs get their secrets from.
    pub(crate) secrets: SecretFolder,
    /// The most that a call of a plan may ask for.
    pub(crate) most: Limits,
    /// As many tool calls as this process carries out at once.
    pub(crate) slots: Semaphore,
    pub(crate) seed: u64,
    pub(crate) drain: Arc<Drain>,
}

/// The body.
pub(crate) async fn run(shop: &Workshop, run_id: &RunId) -> dbos::Result<RunOutput, RunFailure> {
    // An earlier execution recorded something. Without any, a step need not look for its own row before it does its
    // work, and that is one statement less for each.
    let earlier = AtomicBool::new(false);
    let plan_id = StepId::plan();
    let planned: Planned = durable(&shop.drain, plan_id.as_str(), || {
        plan(shop, run_id, &plan_id, &earlier)
    })
    .await?;
    let plan = match planned.plan {
        Some(plan) => plan,
        // The step was replayed from its checkpoint; the row that it wrote before never changes.
        None => {
            earlier.store(true, Ordering::Relaxed);
            recorded_plan(stored_output(shop, run_id, &plan_id).await?)?
        }
    };
    let dependencies = plan
        .dependencies()
        .map_err(|fault| RunFailure::new(ErrorCode::StoredPlanInvalid, fault.to_string()))?;
    let before = before(&dependencies);
    let material = OnceCell::new_with(planned.material);
    let steps: Vec<ToolStep<'_>> = plan
        .tool_calls
        .iter()
        .zip(&before)
        .enumerate()
        .map(|(index, (call, before))| ToolStep {
            shop,
            run_id,
            step_id: StepId::tool(index),
            call,
            trace_id: planned.trace_id.as_deref(),
            before,
            material: &material,
        })
        .collect();
    let work: Vec<_> = steps
        .iter()
        .map(|step| {
            let mut look = earlier.load(Ordering::Relaxed);
            durable(&shop.drain, step.step_id.as_str(), move || {
                // After a first attempt, its write may have been committed though its answer was lost.
                step.execute(std::mem::replace(&mut look, true))
            })
        })
        .collect();
    // What runs nothing takes no room.
    let slots = shop.sandbox.runs_programs().then_some(&shop.slots);
    let good = |outcome: &dbos::Result<Executed, RunFailure>| {
        outcome
            .as_ref()
            .is_ok_and(|executed| executed.exit_code == 0)
    };
    let outcomes = run_in_parallel(&dependencies, work, slots, good).await;
    for (index, (outcome, step)) in outcomes.into_iter().zip(&steps).enumerate() {
        // Those that never began did so for one that failed, of which one at least comes before them or after.
        if let Some(outcome) = outcome {
            succeeded(&plan, index, &step.step_id, outcome?)?;
        }
    }
    Ok(RunOutput {
        tool_calls: plan.tool_calls.len(),
    })
}

fn succeeded(
    plan: &Plan,
    index: usize,
    step_id: &StepId,
    executed: Executed,
) -> Result<(), RunFailure> {
    if executed.exit_code == 0 {
        return Ok(());
    }
    let reason = executed.reason.map(|it| format!(" ({it})"));
    let message = format!(
        "tool call {} ({}) ended with exit code {}{}; what it printed is among the run's artifacts",
        index + 1,
        plan.tool_calls[index].name,
        executed.exit_code,
        reason.unwrap_or_default()
    );
    Err(RunFailure::new(ErrorCode::ToolFailed, message).in_step(step_id.as_str()))
}

pub(crate) async fn stored_output(
    shop: &Workshop,
    run_id: &RunId,
    step_id: &StepId,
) -> Result<Value, RunFailure> {
    weather(|| shop.store.step_output(run_id, step_id))
        .await?
        .ok_or_else(|| {
            RunFailure::new(
                ErrorCode::StepRowMissing,
                format!("the row of step {step_id} of run {run_id} was removed while it ran"),
            )
        })
}
