//! Runs: one durable execution of an intent. How one ends is in outcomes.rs.

use std::time::Duration;

use kodo_contract::{
    ArtifactRef, IntentId, RunId, RunStatus, RunView, StepView, Timestamp, WorkflowId,
};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::group::{Answer, Entry, another_answer, column};
use super::idempotency::KeyRow;
use super::json::stored_json;
use crate::{Idempotency, Store, StoreError, Write};

/// What planning needs to know of a run and its intent.
#[derive(Debug, Clone, PartialEq)]
pub struct RunToPlan {
    /// The trace id that the client gave.
    pub trace_id: Option<String>,
    /// The intent as it is stored: `{goal, inputs, constraints, connectors?}`; validated by the caller.
    pub intent: Value,
}

/// A run whose status is not terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// The run.
    pub id: RunId,
    /// Its workflow, which has another id if it is a fork that a client of the engine made.
    pub workflow_id: WorkflowId,
    /// Its status, as the product database has it.
    pub status: RunStatus,
    /// Whether an execution holds its claim.
    pub claimed: bool,
}

/// A run as it is sent.
#[derive(Debug)]
pub(crate) struct RunRow {
    id: String,
    intent_id: String,
    workflow_id: String,
    trace_id: Option<String>,
    key: Option<KeyRow>,
}

/// What became of a run that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Yes,
    NoIntent,
    KeyTaken,
}

/// The one statement that stores runs.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    runs: &[&RunRow],
) -> Result<Vec<Stored>, StoreError> {
    // As with intents: the insert of a key decides who is first.
    let keys: Vec<Option<&KeyRow>> = column(runs, |it| it.key.as_ref());
    let stored: Vec<(bool, bool)> = sqlx::query_as(
        "WITH asked AS (
             SELECT a.*, EXISTS (SELECT FROM app.intents i WHERE i.id = a.intent_id) AS has_intent
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[],
                         $5::text[], $6::text[], $7::text[], $8::smallint[], $9::text[]) WITH ORDINALITY
                 AS a (id, intent_id, workflow_id, trace_id, scope, key, fingerprint, status, body, n)
         ), first AS (
             INSERT INTO app.idempotency_keys (scope, key, fingerprint, status, body)
             SELECT scope, key, fingerprint, status, body FROM asked WHERE key IS NOT NULL AND has_intent
             ON CONFLICT DO NOTHING
             RETURNING body
         ), stored AS (
             INSERT INTO app.runs (id, intent_id, workflow_id, trace_id)
             SELECT a.id, a.intent_id, a.workflow_id, a.trace_id FROM asked a
             WHERE a.has_intent AND (a.key IS NULL OR EXISTS (SELECT FROM first f WHERE f.body = a.body))
             ON CONFLICT (id) DO NOTHING
             RETURNING id
         )
         SELECT a.has_intent,
                EXISTS (SELECT FROM stored s WHERE s.id = a.id) OR EXISTS (SELECT FROM app.runs r WHERE r.id = a.id)
         FROM asked a ORDER BY a.n",
    )
    .bind(column(runs, |it| it.id.as_str()))
    .bind(column(runs, |it| it.intent_id.as_str()))
    .bind(column(runs, |it| it.workflow_id.as_str()))
    .bind(column(runs, |it| it.trace_id.as_deref()))
    .bind(KeyRow::scopes(&keys))
    .bind(KeyRow::keys(&keys))
    .bind(KeyRow::fingerprints(&keys))
    .bind(KeyRow::statuses(&keys))
    .bind(KeyRow::bodies(&keys))
    .fetch_all(connection)
    .await?;
    let answer = |(has_intent, is_stored)| match (has_intent, is_stored) {
        (_, true) => Stored::Yes,
        (false, false) => Stored::NoIntent,
        (true, false) => Stored::KeyTaken,
    };
    Ok(stored.into_iter().map(answer).collect())
}

impl Store {
    /// Stores a run as `queued`, with its idempotency key if it has one. From here on the run cannot be lost. Returns
    /// `None`, and nothing is written, if there is no such intent.
    ///
    /// # Errors
    /// As any statement.
    pub async fn insert_run(
        &self,
        id: &RunId,
        intent_id: &IntentId,
        trace_id: Option<&str>,
        idempotency: Option<&Idempotency<'_>>,
    ) -> Result<Option<Write>, StoreError> {
        let row = RunRow {
            id: id.as_str().to_owned(),
            intent_id: intent_id.as_str().to_owned(),
            workflow_id: id.workflow_id().into_string(),
            trace_id: trace_id.map(str::to_owned),
            key: idempotency.map(KeyRow::of),
        };
        match self.journal.write(Entry::Run(row)).await? {
            Answer::Run(Stored::Yes) => Ok(Some(Write::Created)),
            Answer::Run(Stored::NoIntent) => Ok(None),
            Answer::Run(Stored::KeyTaken) => self.replay(idempotency).await.map(Some),
            _ => Err(another_answer()),
        }
    }

    /// A run with its intent, for planning; `None` if there is no such run.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if the stored payload is not an object.
    pub async fn run_to_plan(&self, id: &RunId) -> Result<Option<RunToPlan>, StoreError> {
        let row: Option<(Option<String>, String, String)> = sqlx::query_as(
            "SELECT r.trace_id, i.goal, i.payload::text
             FROM app.runs r JOIN app.intents i ON i.id = r.intent_id
             WHERE r.id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|(trace_id, goal, payload)| to_plan(id, trace_id, goal, &payload))
            .transpose()
    }

    /// Says that a run's planner is away, and returns for how long it has been: since this was said first. Recording the plan
    /// takes it back.
    ///
    /// # Errors
    /// As any statement.
    pub async fn planner_is_away(&self, id: &RunId) -> Result<Duration, StoreError> {
        // Never less than zero: the server's clock may have stepped back.
        let seconds: Option<f64> = sqlx::query_scalar(
            "UPDATE app.runs SET planner_away_since = coalesce(planner_away_since, now()) WHERE id = $1
             RETURNING greatest(extract(epoch FROM now() - planner_away_since), 0)::float8",
        )
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await?;
        Ok(Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or(Duration::MAX))
    }

    /// The rows of a run with its steps and artifacts, read in one statement and so from one snapshot.
    ///
    /// # Errors
    /// As any statement.
    pub async fn stored_run(&self, id: &RunId) -> Result<Option<StoredRun>, StoreError> {
        // One row for each step, or one row if there is no step; the first row also carries the artifacts.
        let rows: Vec<ViewRow> = sqlx::query_as(
            "SELECT r.status, r.trace_id, s.step_id, s.phase, coalesce(s.shown::text, s.output::text), s.started_at, s.finished_at,
                    CASE WHEN row_number() OVER (ORDER BY s.started_at, s.step_id) = 1 THEN (
                        SELECT coalesce(json_agg(json_build_object(
                                   'kind', a.kind, 'uri', a.uri, 'inline', a.inline::text, 'sha256', a.sha256
                               ) ORDER BY a.step_id, a.idx), '[]')::text
                        FROM app.artifacts a WHERE a.run_id = r.id
                    ) ELSE '[]' END
             FROM app.runs r LEFT JOIN app.run_steps s ON s.run_id = r.id
             WHERE r.id = $1
             ORDER BY s.started_at, s.step_id",
        )
        .bind(id.as_str())
        .fetch_all(&self.pool)
        .await?;
        Ok((!rows.is_empty()).then(|| StoredRun {
            id: id.clone(),
            rows,
        }))
    }

    /// Up to `limit` runs that are not terminal, by id, after the given one. Walks the partial index
    /// `runs_unfinished`: its cost follows the unfinished runs, not all of them.
    ///
    /// # Errors
    /// As any statement.
    pub async fn unfinished_runs(
        &self,
        after: Option<&RunId>,
        limit: i64,
    ) -> Result<Vec<UnfinishedRun>, StoreError> {
        let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
            "SELECT id, workflow_id, status,
                    EXISTS (SELECT FROM app.run_claims c WHERE c.run_id = runs.id AND c.ended_at IS NULL)
             FROM app.runs
             WHERE status IN ('queued', 'running', 'waiting_input') AND id > $1
             ORDER BY id LIMIT $2",
        )
        .bind(after.map_or("", RunId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .iter()
            .filter_map(|(id, workflow_id, status, claimed)| {
                let run = RunId::parse(id)
                    .zip(WorkflowId::parse(workflow_id))
                    .zip(stored_status(status).ok());
                if run.is_none() {
                    // Changed by hand. It must not keep the sweep from the other runs.
                    tracing::warn!(run.id = id, status, "a run's row is unreadable");
                }
                let ((id, workflow_id), status) = run?;
                let claimed = *claimed;
                Some(UnfinishedRun {
                    id,
                    workflow_id,
                    status,
                    claimed,
                })
            })
            .collect())
    }
}

/// Status, trace id; of a step its id, phase, output and times; artifacts as JSON.
type ViewRow = (
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<OffsetDateTime>,
    Option<OffsetDateTime>,
    String,
);

/// The rows of a run, as text.
#[derive(Debug)]
pub struct StoredRun {
    id: RunId,
    rows: Vec<ViewRow>,
}

impl StoredRun {
    /// How long its JSON is, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = |row: &ViewRow| row.4.as_ref().map_or(0, String::len) + row.7.len();
        self.rows.iter().map(size).sum()
    }

    /// Reads it. Takes as long as there is JSON.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a row is unreadable.
    pub fn view(self) -> Result<RunView, StoreError> {
        let Some((status, trace_id, ..)) = self.rows.first() else {
            return Err(StoreError::Corrupt(format!("run {} has no row", self.id)));
        };
        let mut view = RunView {
            run_id: self.id,
            status: stored_status(status)?,
            steps: Vec::with_capacity(self.rows.len()),
            artifacts: Vec::new(),
            trace_id: trace_id.clone(),
        };
        for (_, _, step_id, phase, output, started_at, finished_at, artifacts) in self.rows {
            let artifacts: Vec<StoredArtifact> = serde_json::from_str(&artifacts)
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            for artifact in artifacts {
                view.artifacts.push(artifact.into_ref()?);
            }
            let (Some(step_id), Some(phase), Some(output), Some(started_at)) =
                (step_id, phase, output, started_at)
            else {
                continue;
            };
            view.steps.push(StepView {
                step_id: step_id.into(),
                phase: phase
                    .parse()
                    .map_err(|_| StoreError::Corrupt(format!("unknown phase {phase:?}")))?,
                output: stored_json(&output)?,
                started_at: Timestamp::from(started_at),
                finished_at: finished_at.map(Timestamp::from),
            });
        }
        Ok(view)
    }
}

#[derive(Debug, serde::Deserialize)]
struct StoredArtifact {
    kind: String,
    uri: String,
    /// JSON text inside JSON: a number of many digits must not pass through a number type on its way.
    inline: Option<String>,
    sha256: String,
}

impl StoredArtifact {
    fn into_ref(self) -> Result<ArtifactRef, StoreError> {
        Ok(ArtifactRef {
            kind: self.kind,
            uri: self.uri,
            inline: self
                .inline
                .as_deref()
                .map_or(Ok(Value::Null), stored_json)?,
            sha256: self.sha256,
        })
    }
}

/// A run with its stored intent.
pub(super) fn to_plan(
    id: &RunId,
    trace_id: Option<String>,
    goal: String,
    payload: &str,
) -> Result<RunToPlan, StoreError> {
    let Value::Object(payload) = stored_json(payload)? else {
        return Err(StoreError::Corrupt(format!(
            "the payload of the intent of run {id} is not an object"
        )));
    };
    let mut intent = serde_json::Map::new();
    intent.insert("goal".into(), goal.into());
    intent.extend(payload);
    Ok(RunToPlan {
        trace_id,
        intent: Value::Object(intent),
    })
}

pub(crate) fn stored_status(text: &str) -> Result<RunStatus, StoreError> {
    text.parse()
        .map_err(|_| StoreError::Corrupt(format!("unknown run status {text:?}")))
}
