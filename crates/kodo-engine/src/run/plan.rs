//! The planning step: the intent as it is stored, a plan, and its row.

use std::sync::atomic::{AtomicBool, Ordering};

use kodo_contract::{
    Boundary, ErrorCode, Intent, Invalid, Phase, Plan, RunId, StepId, decode, encode,
};
use kodo_planner::{PlanRequest, PlanSource};
use kodo_store::{NewStep, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::RunFailure;
use crate::run::durable::weather;
use crate::run::inputs::Material;
use crate::run::record::Recording;
use crate::run::workflow::{Workshop, stored_output};

/// What the planning step leaves in its checkpoint. The plan itself is in the step's own row: one place for
/// it, whatever its size and however deep its arguments nest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Planned {
    pub(crate) trace_id: Option<String>,
    #[serde(skip)]
    pub(crate) plan: Option<Plan>,
    #[serde(skip)]
    pub(crate) material: Option<Material>,
}

/// Plans, and records what was planned.
pub(crate) async fn plan(
    shop: &Workshop,
    run_id: &RunId,
    step_id: &StepId,
    earlier: &AtomicBool,
) -> Result<Planned, RunFailure> {
    let started_at = kodo_contract::now();
    let run = weather(|| shop.store.run_to_plan(run_id))
        .await?
        .ok_or_else(|| {
            RunFailure::new(
                ErrorCode::RunMissing,
                format!("run {run_id} is not in the database"),
            )
        })?;
    let trace_id = run.trace_id;
    earlier.fetch_or(run.begun, Ordering::Relaxed);
    if run.begun
        && let Some(output) = weather(|| shop.store.step_output(run_id, step_id)).await?
    {
        return Ok(Planned {
            trace_id,
            plan: Some(recorded_plan(output)?),
            material: None,
        });
    }
    // Gate 2: what the database holds is checked as if it came from outside.
    let intent: Intent = decode(&run.intent).map_err(gate(ErrorCode::StoredIntentInvalid))?;
    // Before a model is asked, which costs.
    let material = match shop.sandbox.runs_programs() {
        true => Some(Material::of(&intent)?),
        false => None,
    };
    let planned = shop
        .planner
        .plan(&PlanRequest {
            intent: &intent,
            seed: shop.seed,
            idempotency_key: &format!("{run_id}/{step_id}"),
        })
        .await?;
    // Gate 3: what a step produced is checked before it is kept.
    let plan_json = encode(&planned.plan).map_err(gate(ErrorCode::PlanInvalid))?;
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
    let recorded = recording.record(shop, &step).await?;
    let plan = match recorded {
        Recorded::Now => planned.plan,
        // Somebody recorded a plan before: that one counts, whatever was planned just now.
        Recorded::Before => recorded_plan(stored_output(shop, run_id, step_id).await?)?,
    };
    tracing::debug!(run.id = %run_id, tool_calls = plan.tool_calls.len(), "planned");
    Ok(Planned {
        trace_id,
        plan: Some(plan),
        material,
    })
}

/// The plan in the output of its step.
pub(crate) fn recorded_plan(mut output: Value) -> Result<Plan, RunFailure> {
    decode(&output["plan"].take()).map_err(gate(ErrorCode::StoredPlanInvalid))
}

fn source_json(source: &PlanSource) -> Value {
    serde_json::to_value(source).unwrap_or(Value::Null)
}

/// A failure of a gate.
pub(crate) fn gate(code: ErrorCode) -> impl Fn(Invalid) -> RunFailure {
    move |invalid| RunFailure::new(code, invalid.to_string())
}

/// Every boundary type that this step lets through a gate has a schema; this fails to compile otherwise.
const _: fn() = || {
    fn has_schema<T: Boundary>() {}
    has_schema::<Intent>();
    has_schema::<Plan>();
};
