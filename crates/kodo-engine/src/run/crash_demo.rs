//! The crash demo: an effect, a durable sleep, another effect.

use std::time::Duration;

use kodo_store::Mark;
use serde::{Deserialize, Serialize};

use crate::failure::RunFailure;
use crate::run::durable::{durable, durable_sleep, weather};
use crate::run::workflow::Workshop;

/// Name of the workflow in `dbos.workflow_status`.
pub(crate) const WORKFLOW: &str = "crash_demo";

/// Input of the workflow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DemoInput {
    /// How long it sleeps between its effects, in milliseconds. Part of the input, so that a restart with
    /// another setting sleeps what was promised.
    pub(crate) sleep_ms: u64,
}

/// The body: `s1`, sleep, `s2`.
pub(crate) async fn run(
    shop: &Workshop,
    workflow_id: &str,
    input: &DemoInput,
) -> dbos::Result<(), RunFailure> {
    let (store, drain) = (&shop.store, &shop.drain);
    durable(drain, "s1", || {
        weather(|| store.mark(workflow_id, Mark::S1))
    })
    .await?;
    durable_sleep(Duration::from_millis(input.sleep_ms)).await?;
    durable(drain, "s2", || {
        weather(|| store.mark(workflow_id, Mark::S2))
    })
    .await?;
    Ok(())
}
