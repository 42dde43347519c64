//! How runs end, and how one that has ended is opened again: the transitions that follow the engine.

use std::collections::HashMap;

use kodo_contract::{
    RunError, RunId, RunStatus, Transition, WorkflowId, canonical_json, sha256_hex,
};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::group::{Answer, Entry, another_answer, column};
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

/// The end of a run, or of an execution, or of both, as it is sent.
#[derive(Debug)]
pub(crate) struct EndRow {
    /// The workflow, how it ends, from which statuses, and why; `None` if the execution alone ends.
    run: Option<RunEnd>,
    /// The claim of an execution that is over, by run and epoch.
    over: Option<(String, i32)>,
}

#[derive(Debug)]
struct RunEnd {
    workflow_id: String,
    status: &'static str,
    sources: String,
    error: Option<String>,
    step_id: String,
}

impl EndRow {
    fn of(
        settlement: Option<&Settlement>,
        over: Option<(&RunId, i32)>,
    ) -> Result<Self, StoreError> {
        let run = settlement.map(RunEnd::of).transpose()?;
        let over = over.map(|(run, epoch)| (run.as_str().to_owned(), epoch));
        Ok(Self { run, over })
    }

    pub(crate) fn size(&self) -> usize {
        let error = self.run.as_ref().and_then(|run| run.error.as_ref());
        512 + error.map_or(0, String::len)
    }
}

impl RunEnd {
    fn of(settlement: &Settlement) -> Result<Self, StoreError> {
        let allowed = Transition::Settle.sources(settlement.status);
        if allowed.is_empty() {
            let (run, to) = (settlement.workflow_id.to_string(), settlement.status);
            return Err(StoreError::IllegalTransition { run, to });
        }
        let step = settlement.error.as_ref().and_then(|it| it.step_id.as_ref());
        Ok(Self {
            workflow_id: settlement.workflow_id.as_str().to_owned(),
            status: settlement.status.as_str(),
            sources: allowed.join(" "),
            error: settlement
                .error
                .as_ref()
                .map(|it| canonical_json(&error_json(it))),
            step_id: step.map_or("run", |step| step.as_str()).to_owned(),
        })
    }
}

/// The one statement that ends runs, with the error artifact of those that failed, and executions. Returns for each the
/// run whose row changed.
pub(crate) async fn end(
    connection: &mut PgConnection,
    ends: &[&EndRow],
) -> Result<Vec<Option<String>>, StoreError> {
    let of = |value: fn(&RunEnd) -> Option<&str>| -> Vec<Option<&str>> {
        ends.iter()
            .map(|end| end.run.as_ref().and_then(value))
            .collect()
    };
    let hash = |end: &&EndRow| {
        let error = end.run.as_ref()?.error.as_ref()?;
        Some(sha256_hex(error.as_bytes()))
    };
    let hashes: Vec<Option<String>> = ends.iter().map(hash).collect();
    let changed: HashMap<String, String> = sqlx::query_as::<_, (String, String)>(
        "WITH ended AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
                 AS e (workflow_id, status, sources, error, step_id, sha256)
             WHERE e.workflow_id IS NOT NULL
         ), changed AS (
             UPDATE app.runs r
             SET status = e.status, error = e.error::jsonb, updated_at = now()
             FROM ended e
             -- Failed again, for another reason, is no transition; it is written all the same.
             WHERE r.workflow_id = e.workflow_id AND (r.status = ANY(string_to_array(e.sources, ' '))
                                    OR r.status = e.status AND r.error IS DISTINCT FROM e.error::jsonb)
             RETURNING r.id, r.workflow_id
         ), forgotten AS (
             -- What it said before, if it had failed; `was` is the row as this statement found it.
             DELETE FROM app.artifacts a USING changed c JOIN app.runs was ON was.id = c.id
             WHERE was.error IS NOT NULL AND a.run_id = c.id AND a.kind = 'error'
         ), told AS (
             INSERT INTO app.artifacts (run_id, step_id, idx, kind, uri, inline, sha256, canonical)
             SELECT c.id, e.step_id, next.idx, 'error',
                    'artifact://' || c.id || '/' || e.step_id || '/' || next.idx, e.error::jsonb, e.sha256,
                    e.error
             FROM ended e JOIN changed c ON c.workflow_id = e.workflow_id,
                  LATERAL (SELECT coalesce(max(a.idx) + 1, 0) AS idx FROM app.artifacts a
                           WHERE a.run_id = c.id AND a.step_id = e.step_id) next
             WHERE e.error IS NOT NULL
             ON CONFLICT DO NOTHING
         ), over AS (
             UPDATE app.run_claims c SET ended_at = now()
             FROM unnest($7::text[], $8::int[]) AS o (run_id, epoch)
             WHERE c.run_id = o.run_id AND c.epoch = o.epoch AND c.ended_at IS NULL
         )
         SELECT workflow_id, id FROM changed",
    )
    .bind(of(|run| Some(&run.workflow_id)))
    .bind(of(|run| Some(run.status)))
    .bind(of(|run| Some(&run.sources)))
    .bind(of(|run| run.error.as_deref()))
    .bind(of(|run| Some(&run.step_id)))
    .bind(hashes)
    .bind(column(ends, |end| end.over.as_ref().map(|(run, _)| run.as_str())))
    .bind(column(ends, |end| end.over.as_ref().map(|(_, epoch)| *epoch)))
    .fetch_all(connection)
    .await?
    .into_iter()
    .collect();
    let changed = |end: &&EndRow| changed.get(&end.run.as_ref()?.workflow_id).cloned();
    Ok(ends.iter().map(changed).collect())
}

impl Store {
    /// Writes how a run ended ([`Transition::Settle`]), with the error artifact of one that failed, and in the same commit
    /// ends the claim `over`, by run and epoch: that of an execution that is over. Returns the run if its row changed;
    /// a row that already says so is left alone.
    ///
    /// The engine's outcome wins over whatever the row says, also over another terminal status or another
    /// reason: a workflow that was ended and then resumed ends as what it became, and says nothing else.
    ///
    /// # Errors
    /// As any statement; [`StoreError::IllegalTransition`] if a status is not terminal, and then nothing is written.
    pub async fn settle(
        &self,
        settlement: Option<&Settlement>,
        over: Option<(&RunId, i32)>,
    ) -> Result<Option<RunId>, StoreError> {
        let row = EndRow::of(settlement, over)?;
        match self.journal.write(Entry::End(row)).await? {
            Answer::End(changed) => Ok(changed.as_deref().and_then(RunId::parse)),
            _ => Err(another_answer()),
        }
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
