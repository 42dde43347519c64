//! What the rows say of every run, in a form in which two runs of the same intent are equal.

use std::collections::BTreeMap;

use anyhow::Context;
use kodo_dev::harness::Databases;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use sqlx::types::Json;

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
    /// Steps and artifacts, as Postgres writes the JSON.
    pub(super) effects: String,
}

/// A workflow's row.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct WorkflowRow {
    pub(super) status: String,
    pub(super) recovery_attempts: i64,
    /// Function ids and names, in order.
    pub(super) shape: String,
}

/// Both databases, read at one moment of quiet.
pub(super) struct Rows {
    pub(super) runs: Vec<RunRow>,
    pub(super) workflows: BTreeMap<String, WorkflowRow>,
    /// Ids of all intents.
    pub(super) intents: Vec<String>,
    /// The key of each stored first answer.
    pub(super) keys: Vec<String>,
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
                         FROM dbos.operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid), '') AS shape
        FROM dbos.workflow_status w) workflow";

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
        })
    }
}

impl RunRow {
    /// What is recorded of it but its ids, its trace and its times: the same of each run of one intent.
    pub(super) fn evidence(&self) -> String {
        let effects = self.effects.replace(&self.id, "RUN");
        match &self.trace_id {
            Some(trace) => effects.replace(trace, "TRACE"),
            None => effects,
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
