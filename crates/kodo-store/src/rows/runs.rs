//! Runs: one durable execution of an intent.

use kodo_contract::{
    ArtifactRef, IntentId, RunError, RunId, RunStatus, RunView, StepView, Timestamp, Transition,
    canonical_json, sha256_hex,
};
use serde_json::{Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;

use super::json::stored_json;
use crate::{Idempotency, Store, StoreError, Write};

/// What planning needs to know of a run and its intent.
#[derive(Debug, Clone, PartialEq)]
pub struct RunToPlan {
    /// The trace id that the client gave.
    pub trace_id: Option<String>,
    /// The intent as it crosses the load gate: `{goal, inputs, constraints, connectors?}`, not validated yet.
    pub intent: Value,
    /// Whether any step of the run is recorded: an earlier execution has been here.
    pub begun: bool,
}

/// A run whose status is not terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// The run.
    pub id: RunId,
    /// Its status, as the product database has it.
    pub status: RunStatus,
}

/// The end of a run, as the engine recorded it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The run.
    pub run_id: RunId,
    /// `succeeded`, `failed` or `canceled`.
    pub status: RunStatus,
    /// Why, exactly where the status is `failed`.
    pub error: Option<RunError>,
}

impl Store {
    /// Stores a run as `queued`, with its idempotency key if it has one: one statement, one commit. From
    /// here on the run cannot be lost.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Refused`] where the intent does not exist.
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

    /// The run of an id with its intent, for planning; `None` where there is no such run.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] where the stored payload is not an object.
    pub async fn run_to_plan(&self, id: &RunId) -> Result<Option<RunToPlan>, StoreError> {
        let row: Option<(Option<String>, String, String, bool)> = sqlx::query_as(
            "SELECT r.trace_id, i.goal, i.payload::text,
                    EXISTS (SELECT FROM app.run_steps s WHERE s.run_id = r.id)
             FROM app.runs r JOIN app.intents i ON i.id = r.intent_id
             WHERE r.id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some((trace_id, goal, payload, begun)) = row else {
            return Ok(None);
        };
        let payload = stored_json(&payload)?;
        let Value::Object(payload) = payload else {
            return Err(StoreError::Corrupt(format!(
                "the payload of the intent of run {id} is not an object"
            )));
        };
        let mut intent = serde_json::Map::new();
        intent.insert("goal".into(), goal.into());
        intent.extend(payload);
        Ok(Some(RunToPlan {
            trace_id,
            intent: Value::Object(intent),
            begun,
        }))
    }

    /// A run with its steps and artifacts, read in one statement and so from one snapshot.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] where a row is unreadable.
    pub async fn run_view(&self, id: &RunId) -> Result<Option<RunView>, StoreError> {
        type Row = (
            String,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<OffsetDateTime>,
            Option<OffsetDateTime>,
            Json<Vec<StoredArtifact>>,
        );
        // One row a step, and one row where there is none; the artifacts ride on the first.
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT r.status, r.trace_id, s.step_id, s.phase, s.output::text, s.started_at, s.finished_at,
                    CASE WHEN row_number() OVER (ORDER BY s.started_at, s.step_id) = 1 THEN (
                        SELECT coalesce(json_agg(json_build_object(
                                   'kind', a.kind, 'uri', a.uri, 'inline', a.inline::text, 'sha256', a.sha256
                               ) ORDER BY a.step_id, a.idx), '[]')
                        FROM app.artifacts a WHERE a.run_id = r.id
                    ) ELSE '[]' END
             FROM app.runs r LEFT JOIN app.run_steps s ON s.run_id = r.id
             WHERE r.id = $1
             ORDER BY s.started_at, s.step_id",
        )
        .bind(id.as_str())
        .fetch_all(&self.pool)
        .await?;
        let Some((status, trace_id, ..)) = rows.first() else {
            return Ok(None);
        };
        let mut view = RunView {
            run_id: id.clone(),
            status: stored_status(status)?,
            steps: Vec::with_capacity(rows.len()),
            artifacts: Vec::new(),
            trace_id: trace_id.clone(),
        };
        for (_, _, step_id, phase, output, started_at, finished_at, artifacts) in rows {
            for artifact in artifacts.0 {
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
        Ok(Some(view))
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
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT id, status FROM app.runs
             WHERE status IN ('queued', 'running', 'waiting_input') AND id > $1
             ORDER BY id LIMIT $2",
        )
        .bind(after.map_or("", RunId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .iter()
            .filter_map(|(id, status)| {
                let run = RunId::parse(id).zip(stored_status(status).ok());
                if run.is_none() {
                    // Put there by hand. It must not keep the others from being looked after.
                    tracing::warn!(run.id = id, status, "a run's row is unreadable");
                }
                let (id, status) = run?;
                Some(UnfinishedRun { id, status })
            })
            .collect())
    }

    /// Writes how runs ended ([`Transition::Settle`]), with the error artifact of those that failed: one statement, one
    /// commit for all of them. Returns the runs whose row changed; a row that already says so is left alone.
    ///
    /// The engine's outcome wins over whatever the row says, also over another terminal status or another
    /// reason: a workflow that was ended and then resumed ends as what it became, and says nothing else.
    ///
    /// # Errors
    /// As any statement; [`StoreError::IllegalTransition`] if a status is not terminal, and then nothing is written.
    pub async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<RunId>, StoreError> {
        let mut ids = Vec::with_capacity(settlements.len());
        let mut statuses = Vec::with_capacity(settlements.len());
        let mut errors: Vec<Option<Json<Value>>> = Vec::with_capacity(settlements.len());
        let mut steps = Vec::with_capacity(settlements.len());
        let mut texts = Vec::with_capacity(settlements.len());
        let mut hashes = Vec::with_capacity(settlements.len());
        let mut sources = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let allowed = Transition::Settle.sources(settlement.status);
            if allowed.is_empty() {
                let (run, to) = (settlement.run_id.clone(), settlement.status);
                return Err(StoreError::IllegalTransition { run, to });
            }
            sources.push(allowed.join(" "));
            let error = settlement.error.as_ref().map(error_json);
            ids.push(settlement.run_id.as_str());
            statuses.push(settlement.status.as_str());
            steps.push(
                settlement
                    .error
                    .as_ref()
                    .and_then(|error| error.step_id.as_ref())
                    .map_or("run", |step| step.as_str()),
            );
            let text = error.as_ref().map(canonical_json);
            hashes.push(text.as_ref().map(|text| sha256_hex(text.as_bytes())));
            texts.push(text);
            errors.push(error.map(Json));
        }
        let changed: Vec<String> = sqlx::query_scalar(
            "WITH ended AS (
                 SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[], $5::text[],
                                      $6::text[], $7::text[])
                     AS e (id, status, error, step_id, sha256, sources, canonical)
             ), changed AS (
                 UPDATE app.runs r
                 SET status = e.status, error = e.error, updated_at = now()
                 FROM ended e
                 -- Failed again, for another reason, is no transition; it is written all the same.
                 WHERE r.id = e.id AND (r.status = ANY(string_to_array(e.sources, ' '))
                                        OR r.status = e.status AND r.error IS DISTINCT FROM e.error)
                 RETURNING r.id
             ), forgotten AS (
                 -- What it said before, if it had failed; `was` is the row as this statement found it.
                 DELETE FROM app.artifacts a USING changed c JOIN app.runs was ON was.id = c.id
                 WHERE was.error IS NOT NULL AND a.run_id = c.id AND a.kind = 'error'
             ), told AS (
                 INSERT INTO app.artifacts (run_id, step_id, idx, kind, uri, inline, sha256, canonical)
                 SELECT e.id, e.step_id, next.idx, 'error',
                        'artifact://' || e.id || '/' || e.step_id || '/' || next.idx, e.error, e.sha256,
                        e.canonical
                 FROM ended e JOIN changed c ON c.id = e.id,
                      LATERAL (SELECT coalesce(max(a.idx) + 1, 0) AS idx FROM app.artifacts a
                               WHERE a.run_id = e.id AND a.step_id = e.step_id) next
                 WHERE e.error IS NOT NULL
                 ON CONFLICT DO NOTHING
             )
             SELECT id FROM changed",
        )
        .bind(ids)
        .bind(statuses)
        .bind(errors)
        .bind(steps)
        .bind(hashes)
        .bind(sources)
        .bind(texts)
        .fetch_all(&self.pool)
        .await?;
        Ok(changed.iter().filter_map(|id| RunId::parse(id)).collect())
    }

    /// Says that a run which is over runs again ([`Transition::Reopen`]), because its workflow was resumed through the
    /// engine, and takes back what it said about its end. Returns whether there was anything to take back: a run that
    /// is not over is left alone.
    ///
    /// # Errors
    /// As any statement; [`StoreError::IllegalTransition`] if the run has succeeded.
    pub async fn reopen(&self, id: &RunId) -> Result<bool, StoreError> {
        let reopened: Option<(bool, String)> = sqlx::query_as(
            "WITH reopened AS (
                 UPDATE app.runs SET status = 'running', error = NULL, updated_at = now()
                 WHERE id = $1 AND status = ANY($2)
                 RETURNING id
             ), forgotten AS (
                 DELETE FROM app.artifacts a USING reopened r WHERE a.run_id = r.id AND a.kind = 'error'
             )
             -- The status is the one that this statement found.
             SELECT EXISTS (SELECT FROM reopened), status FROM app.runs WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(Transition::Reopen.sources(RunStatus::Running))
        .fetch_optional(&self.pool)
        .await?;
        let Some((reopened, status)) = reopened else {
            return Ok(false);
        };
        let (from, to) = (stored_status(&status)?, RunStatus::Running);
        // A run that was over when the statement began, and was opened again by somebody else meanwhile, is none that
        // cannot be.
        if !reopened && from.is_terminal() && !from.can_become(to, Transition::Reopen) {
            let run = id.clone();
            return Err(StoreError::IllegalTransition { run, to });
        }
        Ok(reopened)
    }
}

/// `{code, message, stepId}`: what column `error` and the error artifact hold.
fn error_json(error: &RunError) -> Value {
    json!({
        "code": error.code,
        "message": error.message,
        "stepId": error.step_id.as_ref().map(|step| step.as_str()),
    })
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

fn stored_status(text: &str) -> Result<RunStatus, StoreError> {
    text.parse()
        .map_err(|_| StoreError::Corrupt(format!("unknown run status {text:?}")))
}
