//! What the rows say of every run, in a form in which two runs of the same intent are equal.

use std::collections::BTreeMap;

use anyhow::Context;
use kodo_dev::harness::Databases;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use sqlx::types::Json;

/// Everything that is recorded of a run but its ids, its trace and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Steps and artifacts, as Postgres writes the JSON.
    pub(super) effects: String,
    /// The engine's checkpoints.
    pub(super) checkpoints: String,
}

/// A run's row.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RunRow {
    pub(super) id: String,
    pub(super) intent_id: String,
    pub(super) workflow_id: String,
    pub(super) status: String,
    pub(super) trace_id: Option<String>,
    pub(super) error: Option<String>,
    /// From accepted to ended.
    pub(super) took_ms: i64,
    pub(super) effects: String,
}

/// A workflow's row.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct WorkflowRow {
    pub(super) status: String,
    pub(super) recovery_attempts: i64,
    /// Function ids and names, in order.
    pub(super) shape: String,
    pub(super) checkpoints: String,
}

/// Both databases, read at one moment of quiet.
pub(super) struct Rows {
    pub(super) runs: Vec<RunRow>,
    pub(super) workflows: BTreeMap<String, WorkflowRow>,
    /// Ids of all intents.
    pub(super) intents: Vec<String>,
    /// Scope and key of each stored first answer.
    pub(super) keys: Vec<String>,
    /// Marks of each crash demo: `s1`, `s2`.
    pub(super) marks: BTreeMap<String, (i64, i64)>,
}

const RUNS: &str = "
    SELECT coalesce(jsonb_agg(run ORDER BY run.id), '[]') FROM (
        SELECT id, intent_id, workflow_id, status, trace_id, error::text AS error,
               (extract(epoch FROM updated_at - created_at) * 1000)::bigint AS took_ms,
               jsonb_build_object(
                   'steps', (SELECT jsonb_agg(jsonb_build_array(step_id, phase, output, trace_id,
                                                                started_at <= finished_at)
                                              ORDER BY started_at, step_id)
                             FROM app.run_steps s WHERE s.run_id = r.id),
                   'artifacts', (SELECT jsonb_agg(jsonb_build_array(step_id, idx, kind, uri, inline, sha256)
                                                  ORDER BY step_id, idx)
                                 FROM app.artifacts a WHERE a.run_id = r.id))::text AS effects
        FROM app.runs r) run";

const WORKFLOWS: &str = "
    SELECT coalesce(jsonb_object_agg(workflow_uuid, to_jsonb(workflow)), '{}') FROM (
        SELECT workflow_uuid, status, coalesce(recovery_attempts, 0) AS recovery_attempts,
               coalesce((SELECT string_agg(function_id || ':' || function_name, ' ' ORDER BY function_id)
                         FROM dbos.operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid), '') AS shape,
               coalesce((SELECT jsonb_agg(jsonb_build_array(function_id, function_name, output, error)
                                          ORDER BY function_id)::text
                         FROM dbos.operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid), '') AS checkpoints
        FROM dbos.workflow_status w) workflow";

const MARKS: &str = "
    SELECT coalesce(jsonb_object_agg(run_id, jsonb_build_array(s1, s2)), '{}') FROM (
        SELECT run_id, count(*) FILTER (WHERE step = 's1') AS s1, count(*) FILTER (WHERE step = 's2') AS s2
        FROM app.marks GROUP BY run_id) marks";

impl Rows {
    /// Reads everything.
    pub(super) async fn read(databases: &Databases) -> anyhow::Result<Self> {
        let app = databases.app_pool();
        Ok(Self {
            runs: read(&app, RUNS).await?,
            workflows: read(&databases.system_pool(), WORKFLOWS).await?,
            intents: read(
                &app,
                "SELECT coalesce(jsonb_agg(id), '[]') FROM app.intents",
            )
            .await?,
            keys: read(
                &app,
                "SELECT coalesce(jsonb_agg(key), '[]') FROM app.idempotency_keys",
            )
            .await?,
            marks: read(&app, MARKS).await?,
        })
    }

    /// What is recorded of a run.
    pub(super) fn evidence(&self, run: &RunRow) -> Evidence {
        let normal = |text: &str| {
            let text = text.replace(&run.id, "RUN");
            match &run.trace_id {
                Some(trace) => text.replace(trace, "TRACE"),
                None => text,
            }
        };
        let workflow = self.workflows.get(&run.workflow_id);
        Evidence {
            effects: normal(&run.effects),
            checkpoints: workflow.map_or_else(String::new, |row| normal(&row.checkpoints)),
        }
    }
}

async fn read<T>(pool: &PgPool, statement: &'static str) -> anyhow::Result<T>
where
    T: DeserializeOwned + Send + Unpin + 'static,
{
    let Json(rows) = sqlx::query_scalar(statement)
        .fetch_one(pool)
        .await
        .context("reading the rows")?;
    Ok(rows)
}

/// How much is not over yet: runs, and workflows of the engine.
pub(super) async fn unfinished(databases: &Databases) -> anyhow::Result<(i64, i64)> {
    let runs = "SELECT to_jsonb(count(*)) FROM app.runs WHERE status NOT IN ('succeeded', 'failed', 'canceled')";
    let workflows = "SELECT to_jsonb(count(*)) FROM dbos.workflow_status
                     WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')";
    Ok((
        read(&databases.app_pool(), runs).await?,
        read(&databases.system_pool(), workflows).await?,
    ))
}
