//! Claims: which worker executes a run. One claim of a run is open at most, whatever the engine's rows say.

use std::collections::{HashMap, HashSet};

use kodo_contract::{RunId, RunStatus, WorkflowId};
use sqlx::PgConnection;

use super::group::{Answer, Entry, another_answer, column};
use super::runs::{stored_status, to_plan};
use crate::{RunToPlan, Store, StoreError};

/// What became of asking for the claim of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// It belongs to the execution that asked.
    Taken(ClaimedRun),
    /// Another execution holds it.
    Held,
    /// There is no run of this workflow.
    NoRun,
}

/// A run whose claim was taken, as it was at that moment. Only its holder adds steps to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedRun {
    /// The run.
    pub id: RunId,
    /// The number of this execution among those of the run, from 1.
    pub epoch: i32,
    /// The run's status.
    pub status: RunStatus,
    /// Ids of the steps that earlier executions recorded.
    pub recorded: HashSet<String>,
    /// What these take of a view of the run, in bytes.
    pub view_bytes: u64,
    /// What planning needs; `None` if a plan is recorded, or if the stored intent is unreadable, which planning reports.
    pub to_plan: Option<RunToPlan>,
}

/// A claim that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenClaim {
    /// The workflow of the run.
    pub workflow_id: String,
    /// The run.
    pub run_id: RunId,
    /// The number of the execution among those of the run.
    pub epoch: i32,
    /// What the execution called itself.
    pub execution: String,
}

/// A claim as it is asked for.
#[derive(Debug)]
pub(crate) struct ClaimRow {
    workflow_id: String,
    worker: String,
    execution: String,
}

/// What is read with a claim: the run's id, if there is one, its status, trace id, the epoch that was given, the recorded
/// steps, what they take of a view, goal and payload.
type Row = (
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<Vec<String>>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

/// The one statement that takes claims, unless other executions hold them, and reads what each execution begins with.
pub(crate) async fn take(
    connection: &mut PgConnection,
    claims: &[&ClaimRow],
) -> Result<Vec<Result<Claim, StoreError>>, StoreError> {
    // The index on open claims decides between two that ask at the same time.
    let rows: Vec<Row> = sqlx::query_as(
        "WITH asked AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY
                 AS a (workflow_id, worker, execution, n)
         ), claim AS (
             INSERT INTO app.run_claims (run_id, epoch, worker, execution)
             SELECT r.id, 1 + coalesce((SELECT max(c.epoch) FROM app.run_claims c WHERE c.run_id = r.id), 0),
                    a.worker, a.execution
             FROM asked a JOIN app.runs r ON r.workflow_id = a.workflow_id
             WHERE NOT EXISTS (SELECT FROM app.run_claims c WHERE c.run_id = r.id AND c.ended_at IS NULL)
             ON CONFLICT DO NOTHING
             RETURNING run_id, epoch, execution
         )
         SELECT r.id, r.status, r.trace_id, given.epoch, steps.recorded, steps.view_bytes, i.goal, i.payload::text
         FROM asked a
         LEFT JOIN app.runs r ON r.workflow_id = a.workflow_id
         LEFT JOIN LATERAL (SELECT coalesce(
             (SELECT k.epoch FROM claim k WHERE k.run_id = r.id AND k.execution = a.execution),
             (SELECT c.epoch FROM app.run_claims c
              WHERE c.run_id = r.id AND c.ended_at IS NULL AND c.execution = a.execution)) AS epoch) given ON true
         LEFT JOIN LATERAL (SELECT ARRAY(
             SELECT s.step_id FROM app.run_steps s WHERE s.run_id = r.id AND given.epoch IS NOT NULL
         ) AS recorded, (
             SELECT coalesce(sum(s.view_bytes), 0)::bigint FROM app.run_steps s
             WHERE s.run_id = r.id AND given.epoch IS NOT NULL
         ) AS view_bytes) steps ON true
         LEFT JOIN app.intents i
                ON i.id = r.intent_id AND given.epoch IS NOT NULL AND 'plan' <> ALL (steps.recorded)
         ORDER BY a.n",
    )
    .bind(column(claims, |it| it.workflow_id.as_str()))
    .bind(column(claims, |it| it.worker.as_str()))
    .bind(column(claims, |it| it.execution.as_str()))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(read).collect())
}

fn read(row: Row) -> Result<Claim, StoreError> {
    let (id, status, trace_id, epoch, recorded, view_bytes, goal, payload) = row;
    let Some((id, status)) = id.zip(status) else {
        return Ok(Claim::NoRun);
    };
    let Some(epoch) = epoch else {
        return Ok(Claim::Held);
    };
    let Some(id) = RunId::parse(&id) else {
        return Err(StoreError::Corrupt(format!("{id:?} is no run's id")));
    };
    let to_plan = goal
        .zip(payload)
        .and_then(|(goal, payload)| to_plan(&id, trace_id, goal, &payload).ok());
    Ok(Claim::Taken(ClaimedRun {
        status: stored_status(&status)?,
        id,
        epoch,
        recorded: recorded.into_iter().flatten().collect(),
        view_bytes: view_bytes
            .and_then(|it| u64::try_from(it).ok())
            .unwrap_or_default(),
        to_plan,
    }))
}

impl Store {
    /// Takes the claim of the run of a workflow for a worker, unless another execution holds it: one statement, which
    /// also reads what the execution begins with. Again with the same `execution` it gives the same claim.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if the run's row is unreadable.
    pub async fn claim_run(
        &self,
        workflow: &WorkflowId,
        worker: &str,
        execution: &str,
    ) -> Result<Claim, StoreError> {
        let row = ClaimRow {
            workflow_id: workflow.as_str().to_owned(),
            worker: worker.to_owned(),
            execution: execution.to_owned(),
        };
        match self.journal.write(Entry::Claim(row)).await? {
            Answer::Claim(claim) => claim,
            _ => Err(another_answer()),
        }
    }

    /// Whether a claim is open.
    ///
    /// # Errors
    /// As any statement.
    pub async fn holds_claim(&self, run: &RunId, epoch: i32) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM app.run_claims
                            WHERE run_id = $1 AND epoch = $2 AND ended_at IS NULL)",
        )
        .bind(run.as_str())
        .bind(epoch)
        .fetch_one(&self.pool)
        .await?)
    }

    /// Whether a claim is open and its run has not ended.
    ///
    /// # Errors
    /// As any statement.
    pub async fn is_under_way(&self, run: &RunId, epoch: i32) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM app.run_claims c JOIN app.runs r ON r.id = c.run_id
                            WHERE c.run_id = $1 AND c.epoch = $2 AND c.ended_at IS NULL
                              AND r.status IN ('queued', 'running', 'waiting_input'))",
        )
        .bind(run.as_str())
        .bind(epoch)
        .fetch_one(&self.pool)
        .await?)
    }

    /// The open claims of a worker.
    ///
    /// # Errors
    /// As any statement.
    pub async fn open_claims(&self, worker: &str) -> Result<Vec<OpenClaim>, StoreError> {
        let rows: Vec<(String, String, i32, String)> = sqlx::query_as(
            "SELECT r.workflow_id, r.id, c.epoch, c.execution
             FROM app.run_claims c JOIN app.runs r ON r.id = c.run_id
             WHERE c.ended_at IS NULL AND c.worker = $1",
        )
        .bind(worker)
        .fetch_all(&self.pool)
        .await?;
        let claim = |(workflow_id, run_id, epoch, execution): (String, String, i32, String)| {
            Some(OpenClaim {
                workflow_id,
                run_id: RunId::parse(&run_id)?,
                epoch,
                execution,
            })
        };
        Ok(rows.into_iter().filter_map(claim).collect())
    }

    /// The runs of these workflows, by workflow: the status of each, and which execution holds its claim, if one does.
    ///
    /// # Errors
    /// As any statement; [`StoreError::Corrupt`] if a row is unreadable.
    pub async fn runs_of(
        &self,
        workflows: &[&str],
    ) -> Result<HashMap<String, (RunStatus, Option<String>)>, StoreError> {
        let rows: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT r.workflow_id, r.status, c.execution
             FROM app.runs r LEFT JOIN app.run_claims c ON c.run_id = r.id AND c.ended_at IS NULL
             WHERE r.workflow_id = ANY($1)",
        )
        .bind(workflows)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(workflow, status, execution)| {
                Ok((workflow, (stored_status(&status)?, execution)))
            })
            .collect()
    }

    /// The workers that hold claims.
    ///
    /// # Errors
    /// As any statement.
    pub async fn claiming_workers(&self) -> Result<Vec<String>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT DISTINCT worker FROM app.run_claims WHERE ended_at IS NULL")
                .fetch_all(&self.pool)
                .await?,
        )
    }

    /// Ends every claim of a worker that does not work any more, or does not work yet. Returns how many. From then on
    /// its executions record nothing.
    ///
    /// # Errors
    /// As any statement.
    pub async fn end_claims_of(&self, worker: &str) -> Result<u64, StoreError> {
        Ok(sqlx::query(
            "UPDATE app.run_claims SET ended_at = now() WHERE ended_at IS NULL AND worker = $1",
        )
        .bind(worker)
        .execute(&self.pool)
        .await?
        .rows_affected())
    }
}
