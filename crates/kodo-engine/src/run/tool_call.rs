//! A tool step: executes one call of the plan in the sandbox and records its result.

use std::sync::Arc;

use kodo_contract::{
    Boundary, ErrorCode, Phase, RunId, SnapshotRef, StepId, Stopwatch, ToolCall, ToolResult, decode,
};
use kodo_sandbox::{Grant, Job, LIMIT, Spool};
use kodo_store::{NewStep, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::inputs::Inputs;
use crate::run::record::Recording;
use crate::run::room::ViewRoom;
use crate::run::workspace::{Order, Saved, disk, found_by, restored, saved};

/// The checkpoint of a tool step. The whole result is in the step's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Executed {
    pub(crate) exit_code: i32,
    /// Why the call did not end by itself. Absent in checkpoints of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The limit that ended the call, in words. Absent where none did, and in checkpoints of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<String>,
}

impl Executed {
    fn of(result: &ToolResult) -> Self {
        let limit = result.report.as_ref().and_then(|it| it.get(LIMIT));
        Self {
            exit_code: result.exit_code,
            reason: result.reason.clone(),
            limit: limit.and_then(Value::as_str).map(str::to_owned),
        }
    }
}

/// A call of a plan, as a step of a run.
pub(crate) struct ToolStep<'a> {
    pub(crate) ctx: &'a RunContext,
    pub(crate) run_id: &'a RunId,
    /// The execution that carries the call out.
    pub(crate) epoch: i32,
    pub(crate) step_id: StepId,
    pub(crate) call: &'a ToolCall,
    pub(crate) trace_id: Option<&'a str>,
    /// Its place in the plan.
    pub(crate) index: usize,
    /// What depends on what.
    pub(crate) order: &'a Order<'a>,
    /// What the first calls of the run find, if the run has a workspace.
    pub(crate) workspace: Option<&'a SnapshotRef>,
    /// The room in the view of the run.
    pub(crate) room: &'a ViewRoom,
    /// The inputs of the run. Loaded by the first call that needs them if the plan comes from a checkpoint.
    pub(crate) inputs: &'a OnceCell<Inputs>,
}

impl ToolStep<'_> {
    /// Executes the call and records it. `may_be_recorded`: looks for its row first.
    pub(crate) async fn execute(&self, may_be_recorded: bool) -> Result<Executed, RunFailure> {
        let Self {
            ctx,
            run_id,
            step_id,
            ..
        } = self;
        if may_be_recorded && let Some(output) = ctx.find_output(run_id, step_id).await? {
            return recorded_exit(&output);
        }
        let watch = Stopwatch::start();
        let Called {
            result,
            content,
            left,
        } = self.call_sandbox().await?;
        let executed = Executed::of(&result);
        // Reads what of the files are artifacts.
        let work = move || Recording::of_tool(result, content.as_deref());
        let mut recording = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| disk(std::io::Error::other(error)))??;
        let place = self
            .room
            .take(|most| recording.fit(run_id, step_id, most))?;
        if let Some(left) = left {
            recording.keep_workspace(left);
        }
        let step = NewStep {
            run_id,
            step_id,
            epoch: self.epoch,
            phase: Phase::Executing,
            output: &recording.output,
            shown: recording.shown.as_ref(),
            view_bytes: place.bytes,
            trace_id: self.trace_id,
            started_at: watch.started_at(),
            finished_at: watch.now(),
            artifacts: recording.artifacts(),
            workspace: recording.workspace(),
        };
        let recorded = recording.record(ctx, &step).await?;
        place.keep();
        match recorded {
            Recorded::Now => Ok(executed),
            Recorded::Before => recorded_exit(&ctx.recorded_output(run_id, step_id).await?),
            Recorded::Fenced => Err(RunFailure::superseded()),
        }
    }

    async fn call_sandbox(&self) -> Result<Called, RunFailure> {
        let (mut workspace, mut found, mut names) = (None, None, &[][..]);
        if self.ctx.sandbox.runs_programs() {
            let load = || Inputs::load(self.ctx, self.run_id);
            let inputs = self.inputs.get_or_try_init(load).await?;
            workspace = Some(if let Some(base) = self.workspace {
                let snapshot =
                    found_by(self.ctx, self.run_id, self.order, self.index, base).await?;
                let workspace = restored(self.ctx, &snapshot).await?;
                found = Some(snapshot);
                workspace
            } else {
                let earlier = self.order.all[self.index].iter();
                let earlier: Vec<StepId> = earlier.copied().map(StepId::tool).collect();
                inputs.inherited(self.ctx, self.run_id, &earlier).await?
            });
            names = &inputs.secrets;
        }
        let job = Job {
            call: self.call,
            idempotency_key: &format!("{}/{}", self.run_id, self.step_id),
            seed: self.ctx.seed,
            workspace: workspace.as_ref(),
            files: &[],
            secrets: Grant {
                folder: &self.ctx.secrets,
                names,
            },
            most: &self.ctx.most,
        };
        let outcome = self.ctx.sandbox.execute(&job).await?;
        // Later calls find what is recorded alone, if the run has no workspace that is carried on.
        let report = outcome.result.report.as_ref();
        let omitted = report.and_then(|it| it.get("artifacts")?["limit"].as_str());
        if let (None, Some(limit)) = (&found, omitted) {
            let text = format!("the call left {limit}");
            return Err(RunFailure::new(ErrorCode::WorkspaceTooLarge, text));
        }
        let content = workspace.map(|it| it.content);
        let mut called = Called {
            result: outcome.result,
            content: content.clone(),
            left: None,
        };
        if let (Some(tree), Some(snapshot), Some(content)) = (outcome.workspace, found, content) {
            let by = u32::try_from(self.index).ok();
            let left = saved(snapshot, tree, by, content).await?;
            called.result.workspace = Some(left.reference.clone());
            called.left = Some(left);
        }
        Ok(called)
    }
}

/// What came of a call.
struct Called {
    result: ToolResult,
    /// Where content is that is not in the result.
    content: Option<Arc<Spool>>,
    /// The workspace as the call left it.
    left: Option<Saved>,
}

fn recorded_exit(output: &Value) -> Result<Executed, RunFailure> {
    let result: ToolResult =
        decode(output).map_err(RunFailure::invalid(ErrorCode::StoredResultInvalid))?;
    Ok(Executed::of(&result))
}

/// The type that this step validates has a schema; this fails to compile otherwise.
const _: fn() = || {
    fn has_schema<T: Boundary>() {}
    has_schema::<ToolResult>();
};
