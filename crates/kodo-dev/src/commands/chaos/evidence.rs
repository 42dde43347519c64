//! What the rows say of every run, in a form in which two runs of the same intent are equal.

use std::collections::BTreeMap;

use anyhow::Context;
use kodo_dev::harness::Databases;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

/// Everything that is recorded of a run but its ids, its trace and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Steps and artifacts, as Postgres writes the JSON.
    pub(crate) effects: String,
    /// The engine's checkpoints.
    pub(crate) checkpoints: String,
}

/// A run's row.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) id: String,
    pub(crate) intent_id: String,
    pub(crate) workflow_id: String,
    pub(crate) status: String,
    pub(crate) trace_id: Option<String>,
    pub(crate) error: Option<String>,
    /// From accepted to ended.
    pub(crate) took_ms: i64,
    pub(crate) effects: String,
}

/// A workflow's row.
#[derive(Debug, Clone)]
pub(crate) struct WorkflowRow {
    pub(crate) name: Option<String>,
    pub(crate) status: String,
    pub(crate) recovery_attempts: i64,
    /// Function ids and names, in order.
    pub(crate) shape: String,
    pub(crate) checkpoints: String,
}

fn run(row: &PgRow) -> sqlx::Result<RunRow> {
    Ok(RunRow {
        id: row.try_get("id")?,
        intent_id: row.try_get("intent_id")?,
        workflow_id: row.try_get("workflow_id")?,
        status: row.try_get("status")?,
        trace_id: row.try_get("trace_id")?,
        error: row.try_get("error")?,
        took_ms: row.try_get("took_ms")?,
        effects: row.try_get("effects")?,
    })
}

fn workflow(row: &PgRow) -> sqlx::Result<(String, WorkflowRow)> {
    let workflow = WorkflowRow {
        name: row.try_get("name")?,
        status: row.try_get("status")?,
        recovery_attempts: row.try_get("recovery_attempts")?,
        shape: row.try_get("shape")?,
        checkpoints: row.try_get("checkpoints")?,
    };
    Ok((row.try_get("workflow_uuid")?, workflow))
}

/// Both databases, read at one moment of quiet.
pub(crate) struct Rows {
    pub(crate) runs: Vec<RunRow>,
    pub(crate) workflows: BTreeMap<String, WorkflowRow>,
    /// Ids of all intents.
    pub(crate) intents: Vec<String>,
    /// Scope and key of each stored first answer.
    pub(crate) keys: Vec<String>,
    /// Marks of each crash demo: `s1`, `s2`.
    pub(crate) marks: BTreeMap<String, (i64, i64)>,
}

impl Rows {
    /// Reads everything.
    pub(crate) async fn read(databases: &Databases) -> anyhow::Result<Self> {
        let (app, system) = (databases.app_pool(), databases.system_pool());
        Self::read_by(&app, &system)
            .await
            .context("reading the rows")
    }

    async fn read_by(app: &PgPool, system: &PgPool) -> sqlx::Result<Self> {
        let runs = sqlx::query(
            "SELECT id, intent_id, workflow_id, status, trace_id, error::text AS error,
                    (extract(epoch FROM updated_at - created_at) * 1000)::bigint AS took_ms,
                    jsonb_build_object(
                        'steps', (SELECT jsonb_agg(jsonb_build_array(step_id, phase, output, trace_id,
                                                                     started_at <= finished_at)
                                                   ORDER BY started_at, step_id)
                                  FROM app.run_steps s WHERE s.run_id = r.id),
                        'artifacts', (SELECT jsonb_agg(jsonb_build_array(step_id, idx, kind, uri, inline, sha256)
                                                       ORDER BY step_id, idx)
                                      FROM app.artifacts a WHERE a.run_id = r.id))::text AS effects
             FROM app.runs r ORDER BY id",
        )
        .fetch_all(app)
        .await?;
        let workflows = sqlx::query(
            "SELECT workflow_uuid, name, status, coalesce(recovery_attempts, 0) AS recovery_attempts,
                    coalesce((SELECT string_agg(function_id || ':' || function_name, ' ' ORDER BY function_id)
                              FROM dbos.operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid), '') AS shape,
                    coalesce((SELECT jsonb_agg(jsonb_build_array(function_id, function_name, output, error)
                                               ORDER BY function_id)::text
                              FROM dbos.operation_outputs o WHERE o.workflow_uuid = w.workflow_uuid), '')
                        AS checkpoints
             FROM dbos.workflow_status w",
        )
        .fetch_all(system)
        .await?;
        let marks: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT run_id, count(*) FILTER (WHERE step = 's1'), count(*) FILTER (WHERE step = 's2')
             FROM app.marks GROUP BY run_id",
        )
        .fetch_all(app)
        .await?;
        Ok(Self {
            runs: runs.iter().map(run).collect::<sqlx::Result<_>>()?,
            workflows: workflows
                .iter()
                .map(workflow)
                .collect::<sqlx::Result<_>>()?,
            intents: sqlx::query_scalar("SELECT id FROM app.intents")
                .fetch_all(app)
                .await?,
            keys: sqlx::query_scalar("SELECT key FROM app.idempotency_keys")
                .fetch_all(app)
                .await?,
            marks: marks
                .into_iter()
                .map(|(id, s1, s2)| (id, (s1, s2)))
                .collect(),
        })
    }

    /// What is recorded of a run.
    pub(crate) fn evidence(&self, run: &RunRow) -> Evidence {
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

/// How much is not over yet: runs, and workflows of the engine.
pub(crate) async fn unfinished(databases: &Databases) -> anyhow::Result<(i64, i64)> {
    let runs = sqlx::query_scalar(
        "SELECT count(*) FROM app.runs WHERE status NOT IN ('succeeded', 'failed', 'canceled')",
    )
    .fetch_one(&databases.app_pool())
    .await?;
    let workflows = sqlx::query_scalar(
        "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')",
    )
    .fetch_one(&databases.system_pool())
    .await?;
    Ok((runs, workflows))
}
