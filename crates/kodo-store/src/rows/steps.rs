//! Steps of a run: each recorded once, under its natural key.

use kodo_contract::{Object, Phase, RunId, RunStatus, SnapshotRef, StepId, Transition};
use serde_json::Value;
use sqlx::PgExecutor;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::json::stored_json;
use crate::{NewArtifact, Store, StoreError};

/// A finished step, before it is recorded.
#[derive(Debug, Clone)]
pub struct NewStep<'a> {
    /// The run.
    pub run_id: &'a RunId,
    /// The step within the run.
    pub step_id: &'a StepId,
    /// The execution that records it, see [`ClaimedRun::epoch`](crate::ClaimedRun::epoch).
    pub epoch: i32,
    /// What kind of step it is.
    pub phase: Phase,
    /// Its output; validated by the caller.
    pub output: &'a Value,
    /// What a view shows in its place, if there is no room for it; validated by the caller.
    pub shown: Option<&'a Value>,
    /// What the step takes of a view of its run, in bytes.
    pub view_bytes: u64,
    /// The client's trace id, repeated on each step so that one row tells where it belongs.
    pub trace_id: Option<&'a str>,
    /// When its work began.
    pub started_at: OffsetDateTime,
    /// When its work was done.
    pub finished_at: OffsetDateTime,
    /// What it produced, in order.
    pub artifacts: &'a [NewArtifact],
    /// What its workspace needs of the artifact store.
    pub workspace: &'a [Object],
}

/// What became of recording a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// This call wrote the row.
    Now,
    /// The row was there: an earlier execution wrote it and died before the engine knew. Nothing changed.
    Before,
    /// The claim of this execution is not open any more: another worker was given the run. Nothing changed.
    Fenced,
}

impl Store {
    /// Records a step with its artifacts, and that its run is running: one statement, one commit, and
    /// nothing at all if the step was recorded before, or if the claim of this execution is not open.
    ///
    /// # Errors
    /// As any statement.
    pub async fn record_step(&self, step: &NewStep<'_>) -> Result<Recorded, StoreError> {
        record(&self.pool, step).await
    }

    /// The output of a recorded step; `None` if it is not recorded.
    ///
    /// # Errors
    /// As any statement.
    pub async fn step_output(
        &self,
        run_id: &RunId,
        step_id: &StepId,
    ) -> Result<Option<Value>, StoreError> {
        let text: Option<String> = sqlx::query_scalar(
            "SELECT output::text FROM app.run_steps WHERE run_id = $1 AND step_id = $2",
        )
        .bind(run_id.as_str())
        .bind(step_id.as_str())
        .fetch_optional(&self.pool)
        .await?;
        text.as_deref().map(stored_json).transpose()
    }

    /// What the tool steps of a run say of the workspace that they left, if they left one, with their ids.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if a row is unreadable.
    pub async fn workspaces_of(
        &self,
        run_id: &RunId,
    ) -> Result<Vec<(String, SnapshotRef)>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT step_id, (output -> 'workspace')::text FROM app.run_steps
             WHERE run_id = $1 AND step_id <> 'plan' AND jsonb_typeof(output -> 'workspace') = 'object'",
        )
        .bind(run_id.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(step_id, text)| {
                let read = serde_json::from_str(&text);
                let read = read.map_err(|error| {
                    StoreError::Corrupt(format!(
                        "the workspace of step {step_id} of {run_id}: {error}"
                    ))
                });
                Ok((step_id, read?))
            })
            .collect()
    }
}

/// The one statement that records a step.
pub(crate) async fn record<'e>(
    executor: impl PgExecutor<'e>,
    step: &NewStep<'_>,
) -> Result<Recorded, StoreError> {
    let indexes: Vec<i32> = (0..).take(step.artifacts.len()).collect();
    let kinds: Vec<&str> = step.artifacts.iter().map(|a| a.kind.as_str()).collect();
    let uris: Vec<String> = (0..step.artifacts.len())
        .map(|index| NewArtifact::uri(step.run_id, step.step_id, index))
        .collect();
    let inlines: Vec<Json<&Value>> = step.artifacts.iter().map(|a| Json(&a.inline)).collect();
    let hashed = step.artifacts.iter().map(NewArtifact::hashed);
    let (texts, hashes): (Vec<Option<String>>, Vec<String>) = hashed.unzip();
    let stored = step.artifacts.iter().map(|a| a.stored.as_ref());
    let (sizes, media_types): (Vec<Option<i64>>, Vec<Option<&str>>) = stored
        .map(|stored| {
            let size = stored.map(|stored| i64::try_from(stored.size).unwrap_or(i64::MAX));
            (size, stored.map(|stored| stored.media_type.as_str()))
        })
        .unzip();
    let (objects, object_sizes): (Vec<&str>, Vec<i64>) = step
        .workspace
        .iter()
        .map(|object| {
            let size = i64::try_from(object.size).unwrap_or(i64::MAX);
            (object.sha256.as_str(), size)
        })
        .unzip();
    // The run's row is written only by the step that starts it, or that ends the wait for a planner, so later steps do not
    // touch it. The claim is locked, so
    // that whoever takes it away waits for this commit, or is waited for: afterwards no step of it is recorded.
    let written: Option<bool> = sqlx::query_scalar(
        "WITH claim AS (
             SELECT run_id FROM app.run_claims
             WHERE run_id = $1 AND epoch = $17 AND ended_at IS NULL FOR SHARE
         ), step AS (
             INSERT INTO app.run_steps
                 (run_id, step_id, phase, output, trace_id, started_at, finished_at, epoch, shown, view_bytes)
             SELECT $1, $2, $3, $4, $5, $6, $7, $17, $20::json, $21 FROM claim
             ON CONFLICT (run_id, step_id) DO NOTHING
             RETURNING run_id, step_id
         ), run AS (
             UPDATE app.runs SET status = 'running', planner_away_since = NULL, updated_at = now()
             FROM step
             WHERE id = step.run_id
               AND (status = ANY($15) OR status = 'running' AND planner_away_since IS NOT NULL)
         ), kept AS (
             INSERT INTO app.artifacts
                 (run_id, step_id, idx, kind, uri, inline, sha256, stored_bytes, media_type, canonical)
             SELECT step.run_id, step.step_id, a.idx, a.kind, a.uri, a.inline, a.sha256,
                    a.stored_bytes, a.media_type, a.canonical
             FROM step, unnest($8::int[], $9::text[], $10::text[], $11::jsonb[], $12::text[],
                             $13::bigint[], $14::text[], $16::text[])
                 AS a (idx, kind, uri, inline, sha256, stored_bytes, media_type, canonical)
         ), workspace AS (
             INSERT INTO app.workspace_objects (run_id, step_id, sha256, bytes)
             SELECT step.run_id, step.step_id, o.sha256, o.bytes
             FROM step, unnest($18::text[], $19::bigint[]) AS o (sha256, bytes)
             ON CONFLICT DO NOTHING
         )
         SELECT EXISTS (SELECT FROM step) FROM claim",
    )
    .bind(step.run_id.as_str())
    .bind(step.step_id.as_str())
    .bind(step.phase.as_str())
    .bind(Json(step.output))
    .bind(step.trace_id)
    .bind(step.started_at)
    .bind(step.finished_at)
    .bind(indexes)
    .bind(kinds)
    .bind(uris)
    .bind(inlines)
    .bind(hashes)
    .bind(sizes)
    .bind(media_types)
    .bind(Transition::Start.sources(RunStatus::Running))
    .bind(texts)
    .bind(step.epoch)
    .bind(objects)
    .bind(object_sizes)
    .bind(step.shown.map(Value::to_string))
    .bind(i64::try_from(step.view_bytes).unwrap_or(i64::MAX))
    .fetch_optional(executor)
    .await?;
    Ok(match written {
        Some(true) => Recorded::Now,
        Some(false) => Recorded::Before,
        None => Recorded::Fenced,
    })
}
