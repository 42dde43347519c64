//! How runs end, and how one that has ended is opened again: the transitions that follow the engine.

use kodo_contract::{
    RunError, RunId, RunStatus, Transition, WorkflowId, canonical_json, sha256_hex,
};
use serde_json::{Value, json};
use sqlx::types::Json;

use super::runs::stored_status;
use crate::{Store, StoreError};

/// The end of a run, as the engine recorded it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The workflow of the run.
    pub workflow_id: WorkflowId,
    /// `succeeded`, `failed` or `canceled`.
    pub status: RunStatus,
    /// Why, exactly where the status is `failed`.
    pub error: Option<RunError>,
}

impl Store {
    /// Writes how runs ended ([`Transition::Settle`]), with the error artifact of those that failed: one statement, one
    /// commit for all of them. Returns the runs whose row changed, each with its workflow; a row that already says so is left alone.
    ///
    /// The engine's outcome wins over whatever the row says, also over another terminal status or another
    /// reason: a workflow that was ended and then resumed ends as what it became, and says nothing else.
    ///
    /// In the same commit it ends the claims in `over`, by run and epoch: those of executions that are over.
    ///
    /// # Errors
    /// As any statement; [`StoreError::IllegalTransition`] if a status is not terminal, and then nothing is written.
    pub async fn settle(
        &self,
        settlements: &[Settlement],
        over: &[(RunId, i32)],
    ) -> Result<Vec<(RunId, String)>, StoreError> {
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
                let (run, to) = (settlement.workflow_id.to_string(), settlement.status);
                return Err(StoreError::IllegalTransition { run, to });
            }
            sources.push(allowed.join(" "));
            let error = settlement.error.as_ref().map(error_json);
            ids.push(settlement.workflow_id.as_str());
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
        let changed: Vec<(String, String)> = sqlx::query_as(
            "WITH ended AS (
                 SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[], $5::text[],
                                      $6::text[], $7::text[])
                     AS e (workflow_id, status, error, step_id, sha256, sources, canonical)
             ), changed AS (
                 UPDATE app.runs r
                 SET status = e.status, error = e.error, updated_at = now()
                 FROM ended e
                 -- Failed again, for another reason, is no transition; it is written all the same.
                 WHERE r.workflow_id = e.workflow_id AND (r.status = ANY(string_to_array(e.sources, ' '))
                                        OR r.status = e.status AND r.error IS DISTINCT FROM e.error)
                 RETURNING r.id, r.workflow_id
             ), forgotten AS (
                 -- What it said before, if it had failed; `was` is the row as this statement found it.
                 DELETE FROM app.artifacts a USING changed c JOIN app.runs was ON was.id = c.id
                 WHERE was.error IS NOT NULL AND a.run_id = c.id AND a.kind = 'error'
             ), told AS (
                 INSERT INTO app.artifacts (run_id, step_id, idx, kind, uri, inline, sha256, canonical)
                 SELECT c.id, e.step_id, next.idx, 'error',
                        'artifact://' || c.id || '/' || e.step_id || '/' || next.idx, e.error, e.sha256,
                        e.canonical
                 FROM ended e JOIN changed c ON c.workflow_id = e.workflow_id,
                      LATERAL (SELECT coalesce(max(a.idx) + 1, 0) AS idx FROM app.artifacts a
                               WHERE a.run_id = c.id AND a.step_id = e.step_id) next
                 WHERE e.error IS NOT NULL
                 ON CONFLICT DO NOTHING
             ), over AS (
                 UPDATE app.run_claims c SET ended_at = now()
                 FROM unnest($8::text[], $9::int[]) AS o (run_id, epoch)
                 WHERE c.run_id = o.run_id AND c.epoch = o.epoch AND c.ended_at IS NULL
             )
             SELECT id, workflow_id FROM changed",
        )
        .bind(ids)
        .bind(statuses)
        .bind(errors)
        .bind(steps)
        .bind(hashes)
        .bind(sources)
        .bind(texts)
        .bind(over.iter().map(|(run, _)| run.as_str()).collect::<Vec<_>>())
        .bind(over.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        let run = |(id, workflow): (String, String)| Some((RunId::parse(&id)?, workflow));
        Ok(changed.into_iter().filter_map(run).collect())
    }

    /// Says that the run of a workflow, which is over, runs again ([`Transition::Reopen`]), because its workflow was resumed
    /// through the engine, and takes back what it said about its end. It waits for its planner anew. Returns whether there
    /// was anything to take back: a run that
    /// is not over is left alone.
    ///
    /// # Errors
    /// As any statement; [`StoreError::IllegalTransition`] if the run has succeeded.
    pub async fn reopen(&self, workflow: &WorkflowId) -> Result<bool, StoreError> {
        let reopened: Option<(bool, String)> = sqlx::query_as(
            "WITH reopened AS (
                 UPDATE app.runs SET status = 'running', error = NULL, planner_away_since = NULL, updated_at = now()
                 WHERE workflow_id = $1 AND status = ANY($2)
                 RETURNING id
             ), forgotten AS (
                 DELETE FROM app.artifacts a USING reopened r WHERE a.run_id = r.id AND a.kind = 'error'
             )
             -- The status is the one that this statement found.
             SELECT EXISTS (SELECT FROM reopened), status FROM app.runs WHERE workflow_id = $1",
        )
        .bind(workflow.as_str())
        .bind(Transition::Reopen.sources(RunStatus::Running))
        .fetch_optional(&self.pool)
        .await?;
        let Some((reopened, status)) = reopened else {
            return Ok(false);
        };
        let (from, to) = (stored_status(&status)?, RunStatus::Running);
        // A failed or canceled run that another process reopened at the same time is no illegal transition.
        if !reopened && from.is_terminal() && !from.can_become(to, Transition::Reopen) {
            let run = workflow.to_string();
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
