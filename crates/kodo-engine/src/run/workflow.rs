//! The intent workflow: plan, then execute each tool call of the plan.
//!
//! A run resumes by the position of its steps, so the order in which the workflow makes them must not change. Another
//! order needs a new workflow under a new name; this one is kept until none of its runs is left.

use kodo_contract::{ErrorCode, Plan, RunId, StepId};
use kodo_store::ClaimedRun;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::dispatch::dispatcher::Execution;
use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::durable::{Halt, Workflow};
use crate::run::inputs::predecessors;
use crate::run::parallel::run_in_parallel;
use crate::run::plan::{Planned, plan, recorded_plan};
use crate::run::room::ViewRoom;
use crate::run::tool_call::{Executed, ToolStep};
use crate::run::workspace::Order;

/// Name of the workflow in `dbos.workflow_status`.
pub(crate) const WORKFLOW: &str = "intent_run";

/// Input of the workflow, for readers: the body finds its run by the workflow's id. A fork has the input of the run that it
/// was forked from, and where another SDK has migrated the engine's schema, the engine finds no input of it.
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

/// The body, for the execution that holds the run's claim and a place in this process.
pub(crate) async fn run(
    ctx: &RunContext,
    workflow: &Workflow,
    execution: &Execution,
    mut claimed: ClaimedRun,
) -> Result<RunOutput, Halt> {
    let mut to_plan = claimed.to_plan.take();
    let claimed = &claimed;
    let run_id = &claimed.id;
    // Only the holder of the claim adds steps. So a step that was not recorded when the claim was taken need not be
    // looked for, which saves one statement each.
    let recorded = |step: &StepId| claimed.recorded.contains(step.as_str());
    let room = ViewRoom::new(claimed.view_bytes);
    let plan_id = StepId::plan();
    let mut may_be_recorded = recorded(&plan_id);
    let planning = workflow.step(&ctx.drain, plan_id.as_str(), || {
        // A first attempt may have committed its row even if the answer was lost.
        let look = std::mem::replace(&mut may_be_recorded, true);
        let planned = plan(
            ctx,
            execution,
            claimed,
            &room,
            &plan_id,
            to_plan.take(),
            look,
        );
        async move { ctx.of_holder(claimed, planned.await).await }
    });
    let planned: Planned = planning.await?;
    let plan = match planned.plan {
        Some(plan) => plan,
        // The step was replayed from its checkpoint, after it had written its row, which never changes.
        None => recorded_plan(ctx.recorded_output(run_id, &plan_id).await?)?,
    };
    let dependencies = plan
        .dependencies()
        .map_err(|fault| RunFailure::new(ErrorCode::StoredPlanInvalid, fault.to_string()))?;
    let predecessors = predecessors(&dependencies);
    let order = Order {
        direct: &dependencies,
        all: &predecessors,
    };
    let inputs = OnceCell::new_with(planned.inputs);
    let steps: Vec<ToolStep<'_>> = plan
        .tool_calls
        .iter()
        .enumerate()
        .map(|(index, call)| ToolStep {
            ctx,
            run_id,
            epoch: claimed.epoch,
            step_id: StepId::tool(index),
            call,
            trace_id: planned.trace_id.as_deref(),
            index,
            order: &order,
            workspace: planned.workspace.as_ref(),
            room: &room,
            inputs: &inputs,
        })
        .collect();
    room.await_steps(steps.iter().filter(|it| !recorded(&it.step_id)).count());
    let work: Vec<_> = steps
        .iter()
        .map(|step| {
            let mut may_be_recorded = recorded(&step.step_id);
            workflow.step(&ctx.drain, step.step_id.as_str(), move || {
                let executed = step.execute(std::mem::replace(&mut may_be_recorded, true));
                async move { ctx.of_holder(claimed, executed.await).await }
            })
        })
        .collect();
    let replayed: Vec<bool> = steps
        .iter()
        .map(|step| recorded(&step.step_id) || workflow.has_recorded(step.step_id.as_str()))
        .collect();
    // A sandbox that runs no programs needs no bound.
    let slots = ctx.sandbox.runs_programs().then_some(&ctx.slots);
    let good = |outcome: &Result<Executed, Halt>| {
        outcome
            .as_ref()
            .is_ok_and(|executed| executed.exit_code == 0)
    };
    let outcomes = run_in_parallel(&dependencies, work, &replayed, slots, good).await;
    for (index, (outcome, step)) in outcomes.into_iter().zip(&steps).enumerate() {
        // A call that never began was kept back by one that failed, which is among the others.
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
    let reason = executed.reason.map(|reason| match executed.limit {
        Some(limit) => format!(" ({reason}: {limit})"),
        None => format!(" ({reason})"),
    });
    let message = format!(
        "tool call {} ({}) ended with exit code {}{}; what it printed is among the run's artifacts",
        index + 1,
        plan.tool_calls[index].name,
        executed.exit_code,
        reason.unwrap_or_default()
    );
    Err(RunFailure::new(ErrorCode::ToolFailed, message).in_step(step_id.as_str()))
}
