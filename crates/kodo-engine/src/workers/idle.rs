//! Idle workflows: the engine records them as running here although nothing runs them.
//!
//! The engine ends an execution without recording it if the recorded input does not decode, or if one of its own
//! statements is refused. Such a workflow would stay `PENDING` until the next launch. An undecodable one is failed; a
//! stranded one is returned to the queue.

use kodo_contract::ErrorCode;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::failure::RunFailure;
use crate::run::crash_demo::{self, DemoInput};
use crate::run::workflow::{self as intent_run, RunInput};
use crate::sysdb::system_db::PendingRow;
use crate::workers::error::WorkerError;
use crate::workers::shared::Shared;

/// A workflow that did not run for this long is stranded. Not short, because claimed work waits in the engine's dispatch,
/// about 100 a second. Resuming a workflow that was only waiting does no harm: the engine starts none whose row has
/// changed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Rows that one check considers at most.
const BATCH: i64 = 200;

/// Since when each workflow has been seen pending without running.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    since: HashMap<String, Instant>,
}

impl Idle {
    /// Fails undecodable workflows and resumes stranded ones.
    pub(crate) async fn check(
        &mut self,
        shared: &Shared,
        executor_id: &str,
    ) -> Result<(), WorkerError> {
        let idle: Vec<PendingRow> = shared
            .system_db
            .pending_of(executor_id, &shared.dispatcher.executing(), BATCH)
            .await?
            .into_iter()
            .filter(|row| !shared.dispatcher.knows(&row.workflow_uuid))
            .collect();
        self.since
            .retain(|id, _| idle.iter().any(|row| row.workflow_uuid == *id));
        for row in idle {
            if let Some(failure) = undecodable(&row) {
                tracing::warn!(workflow.id = row.workflow_uuid, reason = %failure, "the input of a workflow cannot be decoded; it fails");
                shared
                    .system_db
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
                shared.system_db.resume(&row.workflow_uuid).await?;
                self.since.remove(&row.workflow_uuid);
            }
        }
        Ok(())
    }
}

/// Why the engine cannot decode the input of this workflow, or `None` if it can.
fn undecodable(row: &PendingRow) -> Option<RunFailure> {
    let input = row.inputs.as_deref().unwrap_or("null");
    let refused = match row.name.as_deref() {
        Some(intent_run::WORKFLOW) => serde_json::from_str::<Option<RunInput>>(input).err(),
        Some(crash_demo::WORKFLOW) => serde_json::from_str::<DemoInput>(input).err(),
        // A workflow that this version does not know is left to one that does.
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
    fn only_an_input_that_does_not_decode_is_undecodable() {
        let run = kodo_contract::RunId::generate();
        let good = format!(r#"{{"runId":"{run}"}}"#);
        assert!(undecodable(&row(intent_run::WORKFLOW, Some(&good))).is_none());
        assert!(undecodable(&row(crash_demo::WORKFLOW, Some(r#"{"sleepMs":1}"#))).is_none());
        assert!(undecodable(&row("of_another_version", Some("garbage"))).is_none());
        // As the engine sees an input that another SDK has put elsewhere. A run is found by its workflow.
        assert!(undecodable(&row(intent_run::WORKFLOW, None)).is_none());
        assert!(undecodable(&row(crash_demo::WORKFLOW, None)).is_some());
        for bad in [Some("garbage"), Some("{}")] {
            let failure = undecodable(&row(intent_run::WORKFLOW, bad)).unwrap();
            assert_eq!(failure.code, "input_unreadable");
        }
    }
}
