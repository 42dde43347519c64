//! The planning step: loads the intent, asks the planner, validates the plan and records it.

use kodo_contract::{
    Boundary, ErrorCode, Intent, Phase, Plan, SnapshotRef, StepId, Stopwatch, decode, encode,
};
use kodo_planner::{PlanRequest, PlanSource};
use kodo_store::{ClaimedRun, NewStep, Recorded, RunToPlan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dispatch::dispatcher::Execution;
use crate::failure::RunFailure;
use crate::run::begin::{archive_of, begin};
use crate::run::context::RunContext;
use crate::run::inputs::Inputs;
use crate::run::patience::plan_patiently;
use crate::run::record::Recording;
use crate::run::room::{ViewRoom, frame_size};

/// The checkpoint of the planning step. The plan itself is only in the step's row, whatever its size and however deep
/// its arguments nest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Planned {
    pub(crate) trace_id: Option<String>,
    /// What the first calls find. Absent in a run that older versions planned, or for a sandbox that runs nothing: its calls
    /// find the files that earlier ones left, and nothing is carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<SnapshotRef>,
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
    room: &ViewRoom,
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
            workspace: recorded_workspace(&output)?,
            plan: Some(recorded_plan(output)?),
            inputs: None,
        });
    }
    // Validation at load: stored data is checked as if it came from outside.
    let intent: Intent =
        decode(&run.intent).map_err(RunFailure::invalid(ErrorCode::StoredIntentInvalid))?;
    let inputs = match ctx.sandbox.runs_programs() {
        true => Some((Inputs::of(&intent)?, archive_of(&intent)?)),
        false => None,
    };
    let unpacked = async || match &inputs {
        Some((inputs, archive)) => begin(ctx, archive.as_ref(), inputs, watch.started_at())
            .await
            .map(Some),
        None => Ok(None),
    };
    // Before the planner is asked, because a model costs.
    let mut begun = unpacked().await?;
    let request = PlanRequest {
        intent: &intent,
        seed: ctx.seed,
        idempotency_key: &format!("{run_id}/{step_id}"),
    };
    // A run that waits keeps nothing on the disk.
    let waits = || drop(begun.take());
    let planned = plan_patiently(ctx, execution, claimed, &request, waits).await?;
    if begun.is_none() {
        begun = unpacked().await?;
    }
    let inputs = inputs.map(|(inputs, _)| inputs);
    // Validation before recording.
    let plan_json = encode(&planned.plan).map_err(RunFailure::invalid(ErrorCode::PlanInvalid))?;
    let order = planned.plan.dependencies();
    order.map_err(|fault| RunFailure::new(ErrorCode::PlanInvalid, fault.to_string()))?;
    let mut output = json!({ "plan": plan_json, "source": source_json(&planned.source) });
    let mut workspace = begun.as_ref().map(|begun| begun.reference.clone());
    if let Some(workspace) = &workspace {
        output["workspace"] = json!(workspace);
    }
    let mut recording = Recording::of_plan(&planned.plan, plan_json, output)?;
    // What belongs to no step is counted with the first.
    let frame = frame_size(run_id, trace_id.as_deref());
    room.await_steps(1 + planned.plan.tool_calls.len());
    let place = room.take(|most| {
        let step = recording.fit(run_id, step_id, most.saturating_sub(frame));
        step.map(|bytes| bytes + frame)
    })?;
    if let Some(begun) = begun {
        recording.keep_workspace(begun);
    }
    let step = NewStep {
        run_id,
        step_id,
        epoch: claimed.epoch,
        phase: Phase::Planning,
        output: &recording.output,
        shown: recording.shown.as_ref(),
        view_bytes: place.bytes,
        trace_id: trace_id.as_deref(),
        started_at: watch.started_at(),
        finished_at: watch.now(),
        artifacts: recording.artifacts(),
        workspace: recording.workspace(),
    };
    let recorded = recording.record(ctx, &step).await?;
    place.keep();
    let plan = match recorded {
        Recorded::Now => planned.plan,
        // Another execution recorded a plan before: that one counts.
        Recorded::Before => {
            let output = ctx.recorded_output(run_id, step_id).await?;
            workspace = recorded_workspace(&output)?;
            recorded_plan(output)?
        }
        Recorded::Fenced => return Err(RunFailure::superseded()),
    };
    tracing::debug!(run.id = %run_id, tool_calls = plan.tool_calls.len(), "planned");
    Ok(Planned {
        trace_id,
        workspace,
        plan: Some(plan),
        inputs,
    })
}

/// The plan in the output of its step.
pub(crate) fn recorded_plan(mut output: Value) -> Result<Plan, RunFailure> {
    decode(&output["plan"].take()).map_err(RunFailure::invalid(ErrorCode::StoredPlanInvalid))
}

/// The workspace in the output of its step.
pub(crate) fn recorded_workspace(output: &Value) -> Result<Option<SnapshotRef>, RunFailure> {
    let Some(workspace) = output.get("workspace") else {
        return Ok(None);
    };
    let read = SnapshotRef::deserialize(workspace);
    read.map(Some).map_err(|error| {
        let text = format!("the workspace in the plan's row: {error}");
        RunFailure::new(ErrorCode::StoredPlanInvalid, text)
    })
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
