//! Forks that the engine's clients made: each becomes a run of its own, with what it took over from its source.

use kodo_contract::{RunId, WorkflowId};

use crate::{Store, StoreError};

/// A workflow that was forked from that of a run.
#[derive(Debug, Clone, Copy)]
pub struct NewFork<'a> {
    /// The run that it becomes, unless the client gave the fork the form of a run's id, and no run has it: then that.
    pub id: &'a RunId,
    /// The fork.
    pub workflow_id: &'a WorkflowId,
    /// The workflow that it was forked from.
    pub source: &'a WorkflowId,
    /// The steps that it took over: those of which it has a good checkpoint.
    pub steps: &'a [&'a str],
    /// The first step that it did not take over.
    pub from_step: &'a str,
}

impl Store {
    /// Makes a run of a fork, with the rows and artifacts of the steps that it took over: one statement. Returns whether
    /// there is such a run now; there is none if its source is no run's workflow. Again for the same workflow it changes
    /// nothing.
    ///
    /// # Errors
    /// As any statement.
    pub async fn adopt_fork(&self, fork: &NewFork<'_>) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "WITH made AS (
                 INSERT INTO app.runs (id, intent_id, workflow_id, trace_id, status, forked_from, from_step)
                 SELECT CASE WHEN $2 ~ '^run_[0-9a-f]{32}$' AND NOT EXISTS (SELECT FROM app.runs WHERE id = $2)
                             THEN $2 ELSE $1 END,
                        intent_id, $2, trace_id, CASE WHEN $4::text[] = '{}' THEN 'queued' ELSE 'running' END, id, $5
                 FROM app.runs WHERE workflow_id = $3
                 ON CONFLICT (workflow_id) DO NOTHING
                 RETURNING id, forked_from
             ), steps AS (
                 INSERT INTO app.run_steps (run_id, step_id, phase, output, trace_id, started_at, finished_at, shown, view_bytes)
                 SELECT m.id, s.step_id, s.phase, s.output, s.trace_id, s.started_at, s.finished_at, s.shown, s.view_bytes
                 FROM made m JOIN app.run_steps s ON s.run_id = m.forked_from AND s.step_id = ANY($4)
             ), kept AS (
                 INSERT INTO app.artifacts
                     (run_id, step_id, idx, kind, uri, inline, sha256, stored_bytes, media_type, canonical)
                 SELECT m.id, a.step_id, a.idx, a.kind, 'artifact://' || m.id || '/' || a.step_id || '/' || a.idx,
                        a.inline, a.sha256, a.stored_bytes, a.media_type, a.canonical
                 FROM made m JOIN app.artifacts a
                   ON a.run_id = m.forked_from AND a.step_id = ANY($4) AND a.kind <> 'error'
             ), workspace AS (
                 INSERT INTO app.workspace_objects (run_id, step_id, sha256, bytes)
                 SELECT m.id, o.step_id, o.sha256, o.bytes
                 FROM made m JOIN app.workspace_objects o ON o.run_id = m.forked_from AND o.step_id = ANY($4)
             )
             -- Whoever comes second to make it does not see the first one's row.
             SELECT EXISTS (SELECT FROM app.runs WHERE workflow_id IN ($2, $3))",
        )
        .bind(fork.id.as_str())
        .bind(fork.workflow_id.as_str())
        .bind(fork.source.as_str())
        .bind(fork.steps)
        .bind(fork.from_step)
        .fetch_one(&self.pool)
        .await?)
    }

    /// Those of the given workflows that belong to no run.
    ///
    /// # Errors
    /// As any statement.
    pub async fn without_run(&self, workflows: &[&str]) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT id FROM unnest($1::text[]) AS w (id)
             WHERE NOT EXISTS (SELECT FROM app.runs r WHERE r.workflow_id = w.id)",
        )
        .bind(workflows)
        .fetch_all(&self.pool)
        .await?)
    }

    /// The run of a workflow; `None` if it is no run's.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if the run's row is unreadable.
    pub async fn run_of_workflow(
        &self,
        workflow: &WorkflowId,
    ) -> Result<Option<RunId>, StoreError> {
        let id: Option<String> =
            sqlx::query_scalar("SELECT id FROM app.runs WHERE workflow_id = $1")
                .bind(workflow.as_str())
                .fetch_optional(&self.pool)
                .await?;
        let parse = |id: String| {
            let unreadable = || StoreError::Corrupt(format!("{id:?} is no run's id"));
            RunId::parse(&id).ok_or_else(unreadable)
        };
        id.map(parse).transpose()
    }

    /// Workflows of up to `limit` runs that failed because the engine gave them up.
    ///
    /// # Errors
    /// As any statement.
    pub async fn given_up(&self, limit: i64) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT workflow_id FROM app.runs
             WHERE status = 'failed' AND error ->> 'code' = 'recovery_exhausted'
             ORDER BY id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?)
    }
}
