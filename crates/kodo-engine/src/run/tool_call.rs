//! A tool step: one call of the plan in the sandbox, and its row.

use kodo_contract::{Boundary, ErrorCode, Phase, RunId, StepId, ToolCall, ToolResult, decode};
use kodo_sandbox::{Grant, Job};
use kodo_store::{NewStep, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::failure::RunFailure;
use crate::run::durable::weather;
use crate::run::inputs::Material;
use crate::run::plan::gate;
use crate::run::record::Recording;
use crate::run::workflow::{Workshop, stored_output};

/// What a tool step leaves for the body: its result is in the product database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Executed {
    pub(crate) exit_code: i32,
    /// Why it did not end by itself. Absent in checkpoints of versions that did not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// A call of a plan, as a step of a run.
pub(crate) struct ToolStep<'a> {
    pub(crate) shop: &'a Workshop,
    pub(crate) run_id: &'a RunId,
    pub(crate) step_id: StepId,
    pub(crate) call: &'a ToolCall,
    pub(crate) trace_id: Option<&'a str>,
    /// The indexes of the calls that are over before this one begins.
    pub(crate) before: &'a [usize],
    /// What the run gives to its calls, read by the first that needs it where the plan comes from a checkpoint.
    pub(crate) material: &'a OnceCell<Material>,
}

impl ToolStep<'_> {
    /// Carries the call out and records it; `look` where it may be recorded already.
    pub(crate) async fn execute(&self, look: bool) -> Result<Executed, RunFailure> {
        let Self {
            shop,
            run_id,
            step_id,
            ..
        } = self;
        if look && let Some(output) = weather(|| shop.store.step_output(run_id, step_id)).await? {
            return recorded_exit(&output);
        }
        let started_at = kodo_contract::now();
        let result = self.call_sandbox().await?;
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
            trace_id: self.trace_id,
            started_at,
            finished_at: kodo_contract::now(),
            artifacts: recording.artifacts(),
        };
        match recording.record(shop, &step).await? {
            Recorded::Now => Ok(executed),
            Recorded::Before => recorded_exit(&stored_output(shop, run_id, step_id).await?),
        }
    }

    async fn call_sandbox(&self) -> Result<ToolResult, RunFailure> {
        let (mut files, mut names) = (Vec::new(), &[][..]);
        if self.shop.sandbox.runs_programs() {
            let load = || Material::load(self.shop, self.run_id);
            let material = self.material.get_or_try_init(load).await?;
            let before: Vec<StepId> = self.before.iter().copied().map(StepId::tool).collect();
            files = material.files(self.shop, self.run_id, &before).await?;
            names = &material.secrets;
        }
        let job = Job {
            call: self.call,
            idempotency_key: &format!("{}/{}", self.run_id, self.step_id),
            seed: self.shop.seed,
            files: &files,
            secrets: Grant {
                folder: &self.shop.secrets,
                names,
            },
            most: &self.shop.most,
        };
        Ok(self.shop.sandbox.execute(&job).await?)
    }
}

fn recorded_exit(output: &Value) -> Result<Executed, RunFailure> {
    let result: ToolResult = decode(output).map_err(gate(ErrorCode::StoredResultInvalid))?;
    Ok(Executed {
        exit_code: result.exit_code,
        reason: result.reason,
    })
}

/// What this step lets through a gate has a schema; this fails to compile otherwise.
const _: fn() = || {
    fn has_schema<T: Boundary>() {}
    has_schema::<ToolResult>();
};
