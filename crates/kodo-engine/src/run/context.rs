//! What every step of a run works with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kodo_contract::{ErrorCode, RunId, StepId, TreeBounds};
use kodo_planner::Planner;
use kodo_sandbox::{Limits, Sandbox, SecretFolder};
use kodo_store::content::{ArtifactError, ArtifactStore};
use kodo_store::{ClaimedRun, RunToPlan, Store};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::drain::Drain;
use crate::failure::RunFailure;
use crate::run::planner_away::PlannerAway;
use crate::run::retry::{retry_artifacts, retry_store};

/// The databases, ports and limits of the runs of this process.
pub(crate) struct RunContext {
    pub(crate) store: Store,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    /// How long a step retries the artifact store before its run fails.
    pub(crate) artifact_patience: Duration,
    pub(crate) planner: Arc<dyn Planner>,
    /// How long a run waits for a planner that is away.
    pub(crate) planner_patience: Duration,
    /// The runs that wait for it.
    pub(crate) planner_away: PlannerAway,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// The folder from which jobs get their secrets.
    pub(crate) secrets: SecretFolder,
    /// The most that is carried from one call to the next.
    pub(crate) bounds: TreeBounds,
    /// The folder for content of workspaces on its way.
    pub(crate) spool: PathBuf,
    /// Upper bounds for the limits that a call of a plan may ask for.
    pub(crate) most: Limits,
    /// How long checkpoints wait to be written together.
    pub(crate) linger: Duration,
    /// One permit for each tool call that this process executes at once.
    pub(crate) slots: Semaphore,
    pub(crate) seed: u64,
    pub(crate) drain: Arc<Drain>,
}

impl RunContext {
    /// The row of a run with its intent, not validated yet.
    pub(crate) async fn stored_run(&self, run_id: &RunId) -> Result<RunToPlan, RunFailure> {
        let run = retry_store(|| self.store.run_to_plan(run_id)).await?;
        run.ok_or_else(|| {
            let text = format!("run {run_id} is not in the database");
            RunFailure::new(ErrorCode::RunMissing, text)
        })
    }

    /// The recorded output of a step, or `None` if the step is not recorded.
    pub(crate) async fn find_output(
        &self,
        run_id: &RunId,
        step_id: &StepId,
    ) -> Result<Option<Value>, RunFailure> {
        retry_store(|| self.store.step_output(run_id, step_id)).await
    }

    /// The recorded output of a step that is known to be recorded.
    pub(crate) async fn recorded_output(
        &self,
        run_id: &RunId,
        step_id: &StepId,
    ) -> Result<Value, RunFailure> {
        let output = self.find_output(run_id, step_id).await?;
        output.ok_or_else(|| {
            let text = format!("the row of step {step_id} of run {run_id} was removed");
            RunFailure::new(ErrorCode::StepRowMissing, text)
        })
    }

    /// The outcome of a step. A failure counts only if the execution still holds the run's claim: the engine would
    /// record it, and the execution that has the claim now would find it.
    pub(crate) async fn of_holder<T>(
        &self,
        claimed: &ClaimedRun,
        outcome: Result<T, RunFailure>,
    ) -> Result<T, RunFailure> {
        if outcome.is_err() {
            let holds = || self.store.holds_claim(&claimed.id, claimed.epoch);
            if !retry_store(holds).await? {
                return Err(RunFailure::superseded());
            }
        }
        outcome
    }

    /// Calls the artifact store until it answers, for as long as a step may wait for it.
    pub(crate) async fn retry_artifacts<T, F, Fut>(&self, call: F) -> Result<T, RunFailure>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ArtifactError>>,
    {
        retry_artifacts(self.artifact_patience, call).await
    }
}
