//! The intent workflow: load and validate, plan, execute each tool call, finish.
//!
//! The order of its steps is its shape. A change of that order is a new workflow under a new name beside this
//! one, kept until no old run is left: a run resumes by position, and must find the steps that it left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kodo_artifacts::ArtifactStore;
use kodo_contract::{
    Boundary, Intent, Invalid, Phase, Plan, RunId, StepId, ToolCall, ToolResult, decode, encode,
};
use kodo_planner::{PlanRequest, PlanSource, Planner};
use kodo_sandbox::{Job, Sandbox};
use kodo_store::{NewStep, Recorded, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::RunFailure;
use crate::gate::Gate;
use crate::recording::Recording;
use crate::step::{durable, weather};

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

/// What the planning step leaves in its checkpoint. The plan itself is in the step's own row: one place for
/// it, whatever its size and however deep its arguments nest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    trace_id: Option<String>,
    #[serde(skip)]
    plan: Option<Plan>,
}

/// What a tool step leaves for the body: its result is in the product database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    exit_code: i32,
    /// Why it did not end by itself. Absent in checkpoints of versions that did not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What the workflow works with.
pub(crate) struct Workshop {
    pub(crate) store: Store,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    /// How long a step waits for the artifact store before its run fails.
    pub(crate) artifact_patience: Duration,
    pub(crate) planner: Arc<dyn Planner>,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) seed: u64,
    pub(crate) gate: Gate,
}

/// The body.
pub(crate) async fn run(shop: &Workshop, run_id: &RunId) -> dbos::Result<RunOutput, RunFailure> {
    let history = History::default();
    let plan_id = StepId::plan();
    let planned: Planned = durable(&shop.gate, plan_id.as_str(), || {
        plan(shop, run_id, &plan_id, &history)
    })
    .await?;
    let plan = match planned.plan {
        Some(plan) => plan,
        // The step was replayed from its checkpoint; the row that it wrote before never changes.
        None => {
            history.earlier.store(true, Ordering::Relaxed);
            recorded_plan(stored_output(shop, run_id, &plan_id).await?)?
        }
    };
    for (index, call) in plan.tool_calls.iter().enumerate() {
        let step_id = StepId::tool(index);
        let trace_id = planned.trace_id.as_deref();
        history.attempted.store(false, Ordering::Relaxed);
        let executed: Executed = durable(&shop.gate, step_id.as_str(), || {
            execute(shop, run_id, &step_id, call, trace_id, history.look())
        })
        .await?;
        if executed.exit_code != 0 {
            let reason = executed.reason.map(|it| format!(" ({it})"));
            let message = format!(
                "tool call {} ({}) ended with exit code {}{}; what it printed is among the run's artifacts",
                index + 1,
                call.name,
                executed.exit_code,
                reason.unwrap_or_default()
            );
            return Err(RunFailure::new("tool_failed", message)
                .in_step(step_id.as_str())
                .into());
        }
    }
    Ok(RunOutput {
        tool_calls: plan.tool_calls.len(),
    })
}

/// What is known of earlier executions of the run: without any, a step need not look for its own row before it
/// does its work, and that is one statement less for each.
#[derive(Debug, Default)]
struct History {
    /// An earlier execution recorded something.
    earlier: AtomicBool,
    /// The step at hand was attempted in this execution: its write may have been committed though its answer
    /// was lost.
    attempted: AtomicBool,
}

impl History {
    /// Whether the tool step at hand has to look for its own row.
    fn look(&self) -> bool {
        let attempted = self.attempted.swap(true, Ordering::Relaxed);
        attempted || self.earlier.load(Ordering::Relaxed)
    }
}

async fn plan(
    shop: &Workshop,
    run_id: &RunId,
    step_id: &StepId,
    history: &History,
) -> Result<Planned, RunFailure> {
    let started_at = kodo_contract::now();
    let run = weather(|| shop.store.run_to_plan(run_id))
        .await?
        .ok_or_else(|| {
            RunFailure::new(
                "run_missing",
                format!("run {run_id} is not in the database"),
            )
        })?;
    let trace_id = run.trace_id;
    history.earlier.fetch_or(run.begun, Ordering::Relaxed);
    if run.begun
        && let Some(output) = weather(|| shop.store.step_output(run_id, step_id)).await?
    {
        let plan = Some(recorded_plan(output)?);
        return Ok(Planned { trace_id, plan });
    }
    // Gate 2: what the database holds is checked as if it came from outside.
    let intent: Intent = decode(&run.intent).map_err(gate("stored_intent_invalid"))?;
    let planned = shop
        .planner
        .plan(&PlanRequest {
            intent: &intent,
            seed: shop.seed,
            idempotency_key: &format!("{run_id}/{step_id}"),
        })
        .await?;
    // Gate 3: what a step produced is checked before it is kept.
    let plan_json = encode(&planned.plan).map_err(gate("plan_invalid"))?;
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
    })
}

async fn execute(
    shop: &Workshop,
    run_id: &RunId,
    step_id: &StepId,
    call: &ToolCall,
    trace_id: Option<&str>,
    look: bool,
) -> Result<Executed, RunFailure> {
    if look && let Some(output) = weather(|| shop.store.step_output(run_id, step_id)).await? {
        return recorded_exit(&output);
    }
    let started_at = kodo_contract::now();
    let result = shop
        .sandbox
        .execute(&Job {
            call,
            idempotency_key: &format!("{run_id}/{step_id}"),
            seed: shop.seed,
        })
        .await?;
    let executed = Executed {
        exit_code: result.exit_code,
        reason: result.reason.clone(),
    };
    let recording = Recording::of_tool(result)?;
    let step = NewStep {
        run_id,
        step_id,
        phase: Phase::Executing,
        output: &recording.output,
        trace_id,
        started_at,
        finished_at: kodo_contract::now(),
        artifacts: recording.artifacts(),
    };
    match recording.record(shop, &step).await? {
        Recorded::Now => Ok(executed),
        Recorded::Before => recorded_exit(&stored_output(shop, run_id, step_id).await?),
    }
}

async fn stored_output(
    shop: &Workshop,
    run_id: &RunId,
    step_id: &StepId,
) -> Result<Value, RunFailure> {
    weather(|| shop.store.step_output(run_id, step_id))
        .await?
        .ok_or_else(|| {
            RunFailure::new(
                "step_row_missing",
                format!("the row of step {step_id} of run {run_id} was removed while it ran"),
            )
        })
}

fn recorded_plan(mut output: Value) -> Result<Plan, RunFailure> {
    decode(&output["plan"].take()).map_err(gate("stored_plan_invalid"))
}

fn recorded_exit(output: &Value) -> Result<Executed, RunFailure> {
    let result: ToolResult = decode(output).map_err(gate("stored_result_invalid"))?;
    Ok(Executed {
        exit_code: result.exit_code,
        reason: result.reason,
    })
}

fn source_json(source: &PlanSource) -> Value {
    serde_json::to_value(source).unwrap_or(Value::Null)
}

fn gate(code: &'static str) -> impl Fn(Invalid) -> RunFailure {
    move |invalid| RunFailure::new(code, invalid.to_string())
}

/// Every boundary type that this workflow lets through a gate has a schema; this fails to compile otherwise.
const _: fn() = || {
    fn has_schema<T: Boundary>() {}
    has_schema::<Intent>();
    has_schema::<Plan>();
    has_schema::<ToolResult>();
};
