//! Runs: one durable execution of an intent. How one ends is in outcomes.rs.

use std::time::Duration;

use kodo_contract::{
    ArtifactRef, IntentId, RunId, RunStatus, RunView, StepView, Timestamp, WorkflowId,
};
use serde_json::Value;
use time::OffsetDateTime;

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

impl Store {
    /// Stores a run as `queued`, with its idempotency key if it has one: one statement, one commit. From
    /// here on the run cannot be lost.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Refused`] if the intent does not exist.
    pub async fn insert_run(
        &self,
        id: &RunId,
        intent_id: &IntentId,
        trace_id: Option<&str>,
        idempotency: Option<&Idempotency<'_>>,
    ) -> Result<Write, StoreError> {
        let workflow_id = id.workflow_id();
        let Some(request) = idempotency else {
            sqlx::query(
                "INSERT INTO app.runs (id, intent_id, workflow_id, trace_id) VALUES ($1, $2, $3, $4)",
            )
            .bind(id.as_str())
            .bind(intent_id.as_str())
            .bind(workflow_id.as_str())
            .bind(trace_id)
            .execute(&self.pool)
            .await?;
            return Ok(Write::Created);
        };
        // As in `insert_intent`: the key's insert decides who is first.
        let inserted = sqlx::query(
            "WITH first AS (
                 INSERT INTO app.idempotency_keys (scope, key, fingerprint, status, body)
                 VALUES ($5, $6, $7, $8, $9)
                 ON CONFLICT DO NOTHING
                 RETURNING 1
             )
             INSERT INTO app.runs (id, intent_id, workflow_id, trace_id)
             SELECT $1, $2, $3, $4 FROM first",
        )
        .bind(id.as_str())
        .bind(intent_id.as_str())
        .bind(workflow_id.as_str())
        .bind(trace_id)
        .bind(request.scope)
        .bind(request.key)
        .bind(request.fingerprint)
        .bind(request.status as i16)
        .bind(request.body)
        .execute(&self.pool)
        .await?
        .rows_affected();
        if inserted == 1 {
            return Ok(Write::Created);
        }
        self.replay(request).await
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
