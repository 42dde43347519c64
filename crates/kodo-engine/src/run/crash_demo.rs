//! The crash demo: an effect, a durable sleep, another effect.

use std::time::Duration;

use kodo_store::Mark;
use serde::{Deserialize, Serialize};

use crate::run::context::RunContext;
use crate::run::durable::{Halt, Workflow};
use crate::run::retry::retry_store;

/// Name of the workflow in `dbos.workflow_status`.
pub(crate) const WORKFLOW: &str = "crash_demo";

/// Input of the workflow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DemoInput {
    /// How long it sleeps between its effects, in milliseconds. Part of the input, so that a restart with
    /// another setting keeps the length that the demo was started with.
    pub(crate) sleep_ms: u64,
}

/// The body: `s1`, sleep, `s2`.
pub(crate) async fn run(
    ctx: &RunContext,
    workflow: &Workflow,
    input: &DemoInput,
) -> Result<(), Halt> {
    let mark = |mark| retry_store(move || ctx.store.mark(workflow.id(), mark));
    workflow.step(&ctx.drain, "s1", || mark(Mark::S1)).await?;
    workflow
        .sleep(Duration::from_millis(input.sleep_ms))
        .await?;
    workflow.step(&ctx.drain, "s2", || mark(Mark::S2)).await
}
