//! Claims: which worker executes a run. One claim of a run is open at most, whatever the engine's rows say.

use std::collections::HashSet;

use kodo_contract::{RunId, RunStatus, WorkflowId};

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

/// The columns that [`Store::claim_run`] reads: id, status, trace id, the epoch that was given, whether another claim is
/// open, the recorded steps, what they take of a view, goal and payload.
type Row = (
    String,
    String,
    Option<String>,
    Option<i32>,
    Vec<String>,
    i64,
    Option<String>,
    Option<String>,
);

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
        // The index on open claims decides between two that ask at the same time.
        let row: Option<Row> = sqlx::query_as(
            "WITH claim AS (
                 INSERT INTO app.run_claims (run_id, epoch, worker, execution)
                 SELECT r.id, 1 + coalesce((SELECT max(c.epoch) FROM app.run_claims c WHERE c.run_id = r.id), 0),
                        $2, $3
                 FROM app.runs r
                 WHERE r.workflow_id = $1
                   AND NOT EXISTS (SELECT FROM app.run_claims c WHERE c.run_id = r.id AND c.ended_at IS NULL)
                 ON CONFLICT DO NOTHING
                 RETURNING epoch
             )
             SELECT r.id, r.status, r.trace_id, given.epoch, steps.recorded, steps.view_bytes, i.goal, i.payload::text
             FROM app.runs r
             CROSS JOIN LATERAL (SELECT coalesce(
                 (SELECT epoch FROM claim),
                 (SELECT c.epoch FROM app.run_claims c
                  WHERE c.run_id = r.id AND c.ended_at IS NULL AND c.execution = $3)) AS epoch) given
             CROSS JOIN LATERAL (SELECT ARRAY(
                 SELECT s.step_id FROM app.run_steps s WHERE s.run_id = r.id AND given.epoch IS NOT NULL
             ) AS recorded, (
                 SELECT coalesce(sum(s.view_bytes), 0)::bigint FROM app.run_steps s
                 WHERE s.run_id = r.id AND given.epoch IS NOT NULL
             ) AS view_bytes) steps
             LEFT JOIN app.intents i
                    ON i.id = r.intent_id AND given.epoch IS NOT NULL AND 'plan' <> ALL (steps.recorded)
             WHERE r.workflow_id = $1",
        )
        .bind(workflow.as_str())
        .bind(worker)
        .bind(execution)
        .fetch_optional(&self.pool)
        .await?;
        let Some((id, status, trace_id, epoch, recorded, view_bytes, goal, payload)) = row else {
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
            recorded: recorded.into_iter().collect(),
            view_bytes: u64::try_from(view_bytes).unwrap_or_default(),
            to_plan,
        }))
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
