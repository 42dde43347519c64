//! Workflows that the engine believes to be running here while nothing runs.
//!
//! The engine ends an execution without a word in the row where the recorded input does not decode, and where
//! one of its own statements is refused. Without this look such a workflow stays `PENDING` until the next
//! launch, and then again.

use kodo_contract::ErrorCode;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::failure::RunFailure;
use crate::run::crash_demo::{self, DemoInput};
use crate::run::workflow::{self as intent_run, RunInput};
use crate::sysdb::system::PendingRow;
use crate::workers::shared::Shared;
use crate::workers::sweep::SweepError;

/// A workflow that could run but did not for this long is handed to the engine anew. Claimed work waits its
/// turn in the engine's dispatch, about 100 a second, so this is not short; and a workflow that was only
/// waiting is not hurt, since the engine starts none whose row is no longer its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most rows that one look considers.
const BATCH: i64 = 200;

/// Since when each workflow has been seen pending without running.
#[derive(Debug, Default)]
pub(crate) struct Stranded {
    since: HashMap<String, Instant>,
}

impl Stranded {
    /// Ends what can never run, and hands the rest that does not run back to the engine.
    pub(crate) async fn look(
        &mut self,
        shared: &Shared,
        executor_id: &str,
    ) -> Result<(), SweepError> {
        let idle: Vec<PendingRow> = shared
            .system
            .pending_of(executor_id, &shared.starter.executing(), BATCH)
            .await?
            .into_iter()
            .filter(|row| !shared.starter.knows(&row.workflow_uuid))
            .collect();
        self.since
            .retain(|id, _| idle.iter().any(|row| row.workflow_uuid == *id));
        for row in idle {
            if let Some(failure) = unreadable(&row) {
                tracing::warn!(workflow.id = row.workflow_uuid, reason = %failure, "a workflow can never run");
                shared
                    .system
                    .record_failure(&row.workflow_uuid, failure)
                    .await?;
                continue;
            }
            let since = *self
                .since
                .entry(row.workflow_uuid.clone())
                .or_insert_with(Instant::now);
            if since.elapsed() >= PATIENCE && row.idle_ms >= PATIENCE.as_millis() as i64 {
                tracing::warn!(
                    workflow.id = row.workflow_uuid,
                    "a pending workflow did not run; resuming it"
                );
                shared.system.resume(&row.workflow_uuid).await?;
                self.since.remove(&row.workflow_uuid);
            }
        }
        Ok(())
    }
}

/// Why the engine cannot even begin this workflow, if so.
fn unreadable(row: &PendingRow) -> Option<RunFailure> {
    let input = row.inputs.as_deref().unwrap_or("null");
    let refused = match row.name.as_deref() {
        Some(intent_run::WORKFLOW) => serde_json::from_str::<RunInput>(input).err(),
        Some(crash_demo::WORKFLOW) => serde_json::from_str::<DemoInput>(input).err(),
        // A workflow that this version does not know waits for one that does.
        _ => None,
    }?;
    Some(RunFailure::new(
        ErrorCode::InputUnreadable,
        format!("the workflow's recorded input cannot be read: {refused}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, inputs: Option<&str>) -> PendingRow {
        PendingRow {
            workflow_uuid: "w".to_owned(),
            name: Some(name.to_owned()),
            inputs: inputs.map(str::to_owned),
            idle_ms: 0,
        }
    }

    #[test]
    fn only_an_input_that_does_not_decode_is_unreadable() {
        let run = kodo_contract::RunId::generate();
        let good = format!(r#"{{"runId":"{run}"}}"#);
        assert!(unreadable(&row(intent_run::WORKFLOW, Some(&good))).is_none());
        assert!(unreadable(&row(crash_demo::WORKFLOW, Some(r#"{"sleepMs":1}"#))).is_none());
        assert!(unreadable(&row("of_another_version", Some("garbage"))).is_none());
        for bad in [Some("garbage"), Some("{}"), None] {
            let failure = unreadable(&row(intent_run::WORKFLOW, bad)).unwrap();
            assert_eq!(failure.code, "input_unreadable");
        }
    }
}
