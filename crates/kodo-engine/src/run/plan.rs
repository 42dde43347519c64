//! The planning step: loads the intent, asks the planner, validates the plan and records it.

use kodo_contract::{Boundary, ErrorCode, Intent, Phase, Plan, StepId, Stopwatch, decode, encode};
use kodo_planner::{PlanRequest, PlanSource};
use kodo_store::{ClaimedRun, NewStep, Recorded, RunToPlan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dispatch::dispatcher::Execution;
use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::inputs::Inputs;
use crate::run::patience::plan_patiently;
use crate::run::record::Recording;

/// The checkpoint of the planning step. The plan itself is only in the step's row, whatever its size and however deep
/// its arguments nest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Planned {
    pub(crate) trace_id: Option<String>,
    #[serde(skip)]
    pub(crate) plan: Option<Plan>,
    #[serde(skip)]
    pub(crate) inputs: Option<Inputs>,
}

/// Plans and records the plan. `to_plan` is the run, if it was read already; `may_be_recorded`: looks for its row first.
pub(crate) async fn plan(
    ctx: &RunContext,
    execution: &Execution,
    claimed: &ClaimedRun,
    step_id: &StepId,
    to_plan: Option<RunToPlan>,
    may_be_recorded: bool,
) -> Result<Planned, RunFailure> {
    let watch = Stopwatch::start();
    let run_id = &claimed.id;
    let run = match to_plan {
        Some(run) => run,
        None => ctx.stored_run(run_id).await?,
    };
    let trace_id = run.trace_id;
    if may_be_recorded && let Some(output) = ctx.find_output(run_id, step_id).await? {
        return Ok(Planned {
            trace_id,
            plan: Some(recorded_plan(output)?),
            inputs: None,
        });
    }
    // Validation at load: stored data is checked as if it came from outside.
    let intent: Intent =
        decode(&run.intent).map_err(RunFailure::invalid(ErrorCode::StoredIntentInvalid))?;
    // Before the planner is asked, because a model costs.
    let inputs = match ctx.sandbox.runs_programs() {
        true => Some(Inputs::of(&intent)?),
        false => None,
    };
    let request = PlanRequest {
        intent: &intent,
        seed: ctx.seed,
        idempotency_key: &format!("{run_id}/{step_id}"),
    };
    let planned = plan_patiently(ctx, execution, claimed, &request).await?;
    // Validation before recording.
    let plan_json = encode(&planned.plan).map_err(RunFailure::invalid(ErrorCode::PlanInvalid))?;
    let order = planned.plan.dependencies();
    order.map_err(|fault| RunFailure::new(ErrorCode::PlanInvalid, fault.to_string()))?;
    let output = json!({ "plan": plan_json, "source": source_json(&planned.source) });
    let recording = Recording::of_plan(&planned.plan, plan_json, output)?;
    let step = NewStep {
        run_id,
        step_id,
        epoch: claimed.epoch,
        phase: Phase::Planning,
        output: &recording.output,
        trace_id: trace_id.as_deref(),
        started_at: watch.started_at(),
        finished_at: watch.now(),
        artifacts: recording.artifacts(),
    };
    let recorded = recording.record(ctx, &step).await?;
    let plan = match recorded {
        Recorded::Now => planned.plan,
        // Another execution recorded a plan before: that one counts.
        Recorded::Before => recorded_plan(ctx.recorded_output(run_id, step_id).await?)?,
        Recorded::Fenced => return Err(RunFailure::superseded()),
    };
    tracing::debug!(run.id = %run_id, tool_calls = plan.tool_calls.len(), "planned");
    Ok(Planned {
        trace_id,
        plan: Some(plan),
        inputs,
    })
}

/// The plan in the output of its step.
pub(crate) fn recorded_plan(mut output: Value) -> Result<Plan, RunFailure> {
    decode(&output["plan"].take()).map_err(RunFailure::invalid(ErrorCode::StoredPlanInvalid))
}

fn source_json(source: &PlanSource) -> Value {
    serde_json::to_value(source).unwrap_or(Value::Null)
}

/// Every type that this step validates has a schema; this fails to compile otherwise.
const _: fn() = || {
    fn has_schema<T: Boundary>() {}
    has_schema::<Intent>();
    has_schema::<Plan>();
};
