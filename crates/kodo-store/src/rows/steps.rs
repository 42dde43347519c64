//! Steps of a run: each recorded once, under its natural key.

use kodo_contract::{Object, Phase, RunId, RunStatus, SnapshotRef, StepId, Transition};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::group::{Answer, Entry, another_answer, column};
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
        match self.journal.write(Entry::Step(StepRow::of(step))).await? {
            Answer::Step(recorded) => Ok(recorded),
            _ => Err(another_answer()),
        }
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

/// A step as it is sent: the texts are made by whoever records it, and not by the writer of all.
#[derive(Debug)]
pub(crate) struct StepRow {
    run_id: String,
    step_id: String,
    epoch: i32,
    phase: &'static str,
    output: String,
    shown: Option<String>,
    view_bytes: i64,
    trace_id: Option<String>,
    started_at: OffsetDateTime,
    finished_at: OffsetDateTime,
    artifacts: Vec<ArtifactColumns>,
    objects: Vec<(String, i64)>,
}

/// The columns of an artifact beside its step: kind, address, content as JSON text, hash, length and media type of stored
/// content, and the text that was hashed.
#[derive(Debug)]
struct ArtifactColumns {
    kind: String,
    uri: String,
    inline: String,
    sha256: String,
    stored_bytes: Option<i64>,
    media_type: Option<String>,
    canonical: Option<String>,
}

impl StepRow {
    pub(crate) fn of(step: &NewStep<'_>) -> Self {
        let length = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        let artifact = |(index, artifact): (usize, &NewArtifact)| {
            let (canonical, sha256) = artifact.hashed();
            let stored = artifact.stored.as_ref();
            ArtifactColumns {
                kind: artifact.kind.clone(),
                uri: NewArtifact::uri(step.run_id, step.step_id, index),
                inline: artifact.inline.to_string(),
                sha256,
                stored_bytes: stored.map(|stored| length(stored.size)),
                media_type: stored.map(|stored| stored.media_type.clone()),
                canonical,
            }
        };
        let object = |object: &Object| (object.sha256.as_str().to_owned(), length(object.size));
        Self {
            run_id: step.run_id.as_str().to_owned(),
            step_id: step.step_id.as_str().to_owned(),
            epoch: step.epoch,
            phase: step.phase.as_str(),
            output: step.output.to_string(),
            shown: step.shown.map(Value::to_string),
            view_bytes: length(step.view_bytes),
            trace_id: step.trace_id.map(str::to_owned),
            started_at: step.started_at,
            finished_at: step.finished_at,
            artifacts: step.artifacts.iter().enumerate().map(artifact).collect(),
            objects: step.workspace.iter().map(object).collect(),
        }
    }

    /// About how many bytes it sends.
    pub(crate) fn size(&self) -> usize {
        let texts = |it: &ArtifactColumns| {
            it.inline.len() + it.canonical.as_ref().map_or(0, String::len) + 256
        };
        let artifacts: usize = self.artifacts.iter().map(texts).sum();
        let shown = self.shown.as_ref().map_or(0, String::len);
        self.output.len() + shown + artifacts + 80 * self.objects.len() + 256
    }
}

/// The one statement that records steps, in the order in which they are given.
pub(crate) async fn record(
    connection: &mut PgConnection,
    steps: &[&StepRow],
) -> Result<Vec<Recorded>, StoreError> {
    let artifacts: Vec<(&StepRow, i32, &ArtifactColumns)> = steps
        .iter()
        .flat_map(|step| {
            (0..)
                .zip(&step.artifacts)
                .map(|(index, it)| (*step, index, it))
        })
        .collect();
    let objects: Vec<(&StepRow, &(String, i64))> = steps
        .iter()
        .flat_map(|step| step.objects.iter().map(|it| (*step, it)))
        .collect();
    // The run's row is written only by the step that starts it, or that ends the wait for a planner, so later steps do not
    // touch it. The claim is locked, so that whoever takes it away waits for this commit, or is waited for: afterwards no
    // step of it is recorded.
    let written: Vec<(bool, bool)> = sqlx::query_as(
        "WITH asked AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[],
                                  $7::timestamptz[], $8::timestamptz[], $24::text[], $25::bigint[]) WITH ORDINALITY
                 AS a (run_id, step_id, epoch, phase, output, trace_id, started_at, finished_at, shown, view_bytes, n)
         ), claim AS (
             SELECT c.run_id, c.epoch FROM app.run_claims c
             WHERE (c.run_id, c.epoch) IN (SELECT a.run_id, a.epoch FROM asked a) AND c.ended_at IS NULL FOR SHARE
         ), step AS (
             INSERT INTO app.run_steps
                 (run_id, step_id, phase, output, trace_id, started_at, finished_at, epoch, shown, view_bytes)
             SELECT a.run_id, a.step_id, a.phase, a.output::jsonb, a.trace_id, a.started_at, a.finished_at, a.epoch,
                    a.shown::json, a.view_bytes
             FROM asked a JOIN claim c ON c.run_id = a.run_id AND c.epoch = a.epoch
             ON CONFLICT (run_id, step_id) DO NOTHING
             RETURNING run_id, step_id
         ), run AS (
             UPDATE app.runs SET status = 'running', planner_away_since = NULL, updated_at = now()
             WHERE id IN (SELECT s.run_id FROM step s)
               AND (status = ANY($9) OR status = 'running' AND planner_away_since IS NOT NULL)
         ), kept AS (
             INSERT INTO app.artifacts
                 (run_id, step_id, idx, kind, uri, inline, sha256, stored_bytes, media_type, canonical)
             SELECT s.run_id, s.step_id, a.idx, a.kind, a.uri, a.inline::jsonb, a.sha256,
                    a.stored_bytes, a.media_type, a.canonical
             FROM unnest($10::text[], $11::text[], $12::int[], $13::text[], $14::text[], $15::text[], $16::text[],
                         $17::bigint[], $18::text[], $19::text[])
                 AS a (run_id, step_id, idx, kind, uri, inline, sha256, stored_bytes, media_type, canonical)
             JOIN step s ON s.run_id = a.run_id AND s.step_id = a.step_id
         ), workspace AS (
             INSERT INTO app.workspace_objects (run_id, step_id, sha256, bytes)
             SELECT s.run_id, s.step_id, o.sha256, o.bytes
             FROM unnest($20::text[], $21::text[], $22::text[], $23::bigint[]) AS o (run_id, step_id, sha256, bytes)
             JOIN step s ON s.run_id = o.run_id AND s.step_id = o.step_id
             ON CONFLICT DO NOTHING
         )
         SELECT EXISTS (SELECT FROM claim c WHERE c.run_id = a.run_id AND c.epoch = a.epoch),
                EXISTS (SELECT FROM step s WHERE s.run_id = a.run_id AND s.step_id = a.step_id)
         FROM asked a ORDER BY a.n",
    )
    .bind(column(steps, |it| it.run_id.as_str()))
    .bind(column(steps, |it| it.step_id.as_str()))
    .bind(column(steps, |it| it.epoch))
    .bind(column(steps, |it| it.phase))
    .bind(column(steps, |it| it.output.as_str()))
    .bind(column(steps, |it| it.trace_id.as_deref()))
    .bind(column(steps, |it| it.started_at))
    .bind(column(steps, |it| it.finished_at))
    .bind(Transition::Start.sources(RunStatus::Running))
    .bind(column(&artifacts, |(step, ..)| step.run_id.as_str()))
    .bind(column(&artifacts, |(step, ..)| step.step_id.as_str()))
    .bind(column(&artifacts, |(_, index, _)| *index))
    .bind(column(&artifacts, |(.., it)| it.kind.as_str()))
    .bind(column(&artifacts, |(.., it)| it.uri.as_str()))
    .bind(column(&artifacts, |(.., it)| it.inline.as_str()))
    .bind(column(&artifacts, |(.., it)| it.sha256.as_str()))
    .bind(column(&artifacts, |(.., it)| it.stored_bytes))
    .bind(column(&artifacts, |(.., it)| it.media_type.as_deref()))
    .bind(column(&artifacts, |(.., it)| it.canonical.as_deref()))
    .bind(column(&objects, |(step, _)| step.run_id.as_str()))
    .bind(column(&objects, |(step, _)| step.step_id.as_str()))
    .bind(column(&objects, |(_, it)| it.0.as_str()))
    .bind(column(&objects, |(_, it)| it.1))
    .bind(column(steps, |it| it.shown.as_deref()))
    .bind(column(steps, |it| it.view_bytes))
    .fetch_all(connection)
    .await?;
    let recorded = |(claimed, written)| match (claimed, written) {
        (false, _) => Recorded::Fenced,
        (true, true) => Recorded::Now,
        (true, false) => Recorded::Before,
    };
    Ok(written.into_iter().map(recorded).collect())
}
