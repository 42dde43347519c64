//! The planning step: loads the intent, asks the planner, validates the plan and records it.

use std::sync::atomic::{AtomicBool, Ordering};

use kodo_contract::{Boundary, ErrorCode, Intent, Phase, Plan, RunId, StepId, decode, encode};
use kodo_planner::{PlanRequest, PlanSource};
use kodo_store::{NewStep, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::inputs::Inputs;
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

/// Plans and records the plan. `earlier` is set if an earlier execution of the run recorded any step.
pub(crate) async fn plan(
    ctx: &RunContext,
    run_id: &RunId,
    step_id: &StepId,
    earlier: &AtomicBool,
) -> Result<Planned, RunFailure> {
    let started_at = kodo_contract::now();
    let run = ctx.stored_run(run_id).await?;
    let trace_id = run.trace_id;
    earlier.fetch_or(run.begun, Ordering::Relaxed);
    if run.begun
        && let Some(output) = ctx.find_output(run_id, step_id).await?
    {
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
    let planned = ctx
        .planner
        .plan(&PlanRequest {
            intent: &intent,
            seed: ctx.seed,
            idempotency_key: &format!("{run_id}/{step_id}"),
        })
        .await?;
    // Validation before recording.
    let plan_json = encode(&planned.plan).map_err(RunFailure::invalid(ErrorCode::PlanInvalid))?;
    let order = planned.plan.dependencies();
    order.map_err(|fault| RunFailure::new(ErrorCode::PlanInvalid, fault.to_string()))?;
    let output = json!({ "plan": plan_json, "source": source_json(&planned.source) });
    let recording = Recording::of_plan(&planned.plan, plan_json, output)?;
    let step = NewStep {
        run_id,
        step_id,
        phase: Phase::Planning,
        output: &recording.output,
        trace_id: trace_id.as_deref(),
        started_at,
        finished_at: kodo_contract::now(),
        artifacts: recording.artifacts(),
    };
    let recorded = recording.record(ctx, &step).await?;
    let plan = match recorded {
        Recorded::Now => planned.plan,
        // Another execution recorded a plan before: that one counts.
        Recorded::Before => recorded_plan(ctx.recorded_output(run_id, step_id).await?)?,
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
