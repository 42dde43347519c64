//! One execution of a workflow: it takes what excludes every other one, carries the body out, and records how it ended.
//!
//! Of a run that is its claim, a row of the product database, of which one is open at most. Then the engine's row says
//! that the workflow is this execution's. Clients of the engine write there as well: what decides is the claim.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kodo_contract::{ErrorCode, RunStatus, WorkflowId, execution_id, now};
use kodo_store::{Claim, ClaimedRun, Settlement};
use serde::Serialize;

use crate::dispatch::dispatcher::{Execution, Found};
use crate::failpoint;
use crate::failure::{RunFailure, run_error};
use crate::run::crash_demo::{self, DemoInput};
use crate::run::durable::{Halt, Workflow};
use crate::run::guard::guard;
use crate::run::retry::retry_store;
use crate::run::workflow::{self as intent_run, RunInput};
use crate::settle::outcome::{settle, settlement};
use crate::sysdb::journal::{Answer, Begin, Entry, Finds, Owned};
use crate::sysdb::system_db::RecordedStep;
use crate::workers::forks::adopt;
use crate::workers::launch::Worker;
use crate::workers::shared::Shared;

/// A start that takes longer is told, each time that this has passed.
const SLOW_START: Duration = Duration::from_secs(5);

/// How long a run waits that could not be recorded for a reason that does not pass by itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Carries out a run that the dispatcher has handed out.
pub(crate) async fn execute(worker: Arc<Worker>, execution: Execution) {
    let workflow_id = execution.workflow_id().clone();
    if let Err(failure) = try_execute(&worker, &execution).await {
        tracing::warn!(workflow.id = %workflow_id, error = %failure, "the run could not be carried out; left to the sweep");
    }
}

async fn try_execute(worker: &Worker, execution: &Execution) -> Result<(), RunFailure> {
    let shared = &*worker.shared;
    let store = &shared.ctx.store;
    let id = execution.workflow_id();
    let found = execution.found();
    match found {
        Found::Nothing => failpoint("start:before"),
        Found::Workflow | Found::Queued(_) => failpoint("recover:before"),
    }
    let taking = || store.claim_run(id, &worker.executor_id, &execution.id);
    let claiming = async {
        match retry_store(taking).await? {
            // A client of the engine made the workflow: by a fork, which becomes a run.
            Claim::NoRun if retry_store(|| adopt(shared, id.as_str())).await? => {
                retry_store(taking).await
            }
            claim => Ok(claim),
        }
    };
    let mut claimed = starting(shared, id, claiming).await?;
    let run = match &mut claimed {
        Claim::Taken(run) => run,
        Claim::Held => return Ok(()),
        Claim::NoRun => return end_without_run(worker, id, found).await,
    };
    failpoint("claim:committed");
    if run.status.is_terminal() && !matches!(found, Found::Queued(_)) {
        // It was offered before it ended elsewhere.
        return retry_store(|| settle(store, None, Some((&run.id, run.epoch)))).await;
    }
    let it = Arc::new(Owned {
        workflow_id: id.to_string(),
        owner: execution.id.clone(),
    });
    let ended = begin_and_run(worker, execution, &it, run).await;
    if ended.is_err() {
        // A database refuses what has to be recorded, and somebody has to mend it. The claim is kept meanwhile.
        execution.leave();
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
    // The claim ends in the statement that settles the run, because no other execution should begin before the outcome of
    // this one is recorded.
    let over = Some((&run.id, run.epoch));
    let settlement = match ended? {
        Some(settlement) => Some(settlement),
        // This launch is over. The rows stay as they are for the next worker, who ends the claim.
        None if worker.over.is_cancelled() => return Ok(()),
        // Not ended by this execution: perhaps by a client of the engine.
        None => {
            let ids = [id.as_str()];
            let rows = retry_store(|| shared.system_db.workflows(&ids)).await?;
            rows.first().and_then(settlement)
        }
    };
    retry_store(|| settle(store, settlement.as_ref(), over)).await
}

/// Says that a start is awaited until it is done, and tells one that takes long.
async fn starting<T>(shared: &Shared, id: &WorkflowId, start: impl Future<Output = T>) -> T {
    let _awaited = shared.awaited.until_dropped(format!("the start of {id}"));
    let mut start = pin!(start);
    loop {
        match tokio::time::timeout(SLOW_START, &mut start).await {
            Ok(started) => return started,
            Err(_) => {
                tracing::warn!(run.id = %id, "the database does not answer to the start of a run; still waiting");
            }
        }
    }
}

/// Begins the workflow, carries its body out and records its end. Returns how the run ended, if this execution ended it.
async fn begin_and_run(
    worker: &Worker,
    execution: &Execution,
    it: &Arc<Owned>,
    run: &mut ClaimedRun,
) -> Result<Option<Settlement>, RunFailure> {
    let shared = &*worker.shared;
    let id = execution.workflow_id();
    let input = serde_json::to_string(&RunInput {
        run_id: run.id.clone(),
    });
    let mut begin = Begin {
        name: intent_run::WORKFLOW,
        input: input.unwrap_or_default(),
        executor_id: Arc::clone(&worker.executor_id),
        finds: Finds::Nothing,
    };
    let journal = shared.system_db.journal.clone();
    let linger = shared.ctx.linger;
    // What was found is as old as the offer. Only the first execution of a run may begin without a look at the engine's row.
    let recovered = run.epoch > 1 || !matches!(execution.found(), Found::Nothing);
    let (workflow, deadline) = match recovered {
        false => {
            let it = Arc::clone(it);
            (
                Workflow::new(it, journal, linger, Some(begin), HashMap::new()),
                None,
            )
        }
        true => {
            begin.finds = Finds::Unfinished;
            let Some(deadline) = begun(worker, it, begin).await? else {
                return Ok(None);
            };
            let history = retry_store(|| shared.system_db.history(id.as_str())).await?;
            failpoint("recover:committed");
            let workflow = Workflow::new(Arc::clone(it), journal, linger, None, history);
            (workflow, deadline)
        }
    };
    tracing::info!(run.id = %run.id, recovered, epoch = run.epoch, "run started");
    let claimed = run.clone();
    let unreadable = match execution.found() {
        Found::Queued(failure) => failure.clone(),
        _ => None,
    };
    // Boxed, as each step is: what is polled inside one another without it does not fit on a thread's stack.
    let body = Box::pin(async {
        match unreadable {
            Some(failure) => Err(Halt::Failed(failure)),
            None => intent_run::run(&shared.ctx, &workflow, execution, claimed).await,
        }
    });
    let Some(outcome) = carry_out(worker, &workflow, deadline, body).await? else {
        return Ok(None);
    };
    Ok(Some(Settlement {
        workflow_id: id.clone(),
        status: match &outcome {
            Ok(_) => RunStatus::Succeeded,
            Err(_) => RunStatus::Failed,
        },
        error: outcome.err().map(run_error),
    }))
}

/// Carries a body out, as long as the workflow is this execution's, and records its outcome. Returns it, or `None` if the
/// workflow was ended or taken over meanwhile.
async fn carry_out<T: Serialize>(
    worker: &Worker,
    workflow: &Workflow,
    deadline: Option<i64>,
    body: impl Future<Output = Result<T, Halt>>,
) -> Result<Option<Result<T, RunFailure>>, RunFailure> {
    let main = async {
        let outcome = match worker.over.run_until_cancelled(guard(body)).await {
            Some(Ok(output)) => Ok(output),
            Some(Err(Halt::Failed(failure))) => Err(failure),
            Some(Err(Halt::Superseded)) => return Ok(None),
            None => {
                // What is done is recorded, as far as there is time.
                drop(workflow.catch_up().await);
                return Ok(None);
            }
        };
        Ok(workflow.end(&outcome).await?.then_some(outcome))
    };
    tokio::select! {
        ended = main => ended,
        superseded = workflow.keep_writing() => superseded.map(|_| None),
        () = passes(deadline) => {
            if let Err(error) = worker.shared.system_db.cancel(workflow.id()).await {
                tracing::warn!(workflow.id = workflow.id(), %error, "could not cancel a workflow whose time is over");
            }
            Ok(None)
        }
    }
}

/// Waits until a time in milliseconds since the epoch.
async fn passes(deadline: Option<i64>) {
    let Some(deadline) = deadline else {
        return std::future::pending().await;
    };
    let left = i128::from(deadline) - now().unix_timestamp_nanos() / 1_000_000;
    tokio::time::sleep(Duration::from_millis(
        u64::try_from(left).unwrap_or_default(),
    ))
    .await;
}

/// Begins a workflow that has a row. Returns when its time is over, if it has a bound, or `None` if it cannot begin.
pub(crate) async fn begun(
    worker: &Worker,
    it: &Arc<Owned>,
    begin: Begin,
) -> Result<Option<Option<i64>>, RunFailure> {
    let journal = &worker.shared.system_db.journal;
    let entry = Entry {
        it: Arc::clone(it),
        begin: Some(begin),
        checkpoints: Vec::new(),
        end: None,
    };
    match retry_store(|| journal.write(entry.clone())).await? {
        Answer::Recorded { deadline } => Ok(Some(deadline)),
        _ => Ok(None),
    }
}

/// Ends a workflow in the queue that is no run's, with an error that says so.
async fn end_without_run(
    worker: &Worker,
    id: &WorkflowId,
    found: &Found,
) -> Result<(), RunFailure> {
    let failure = match found {
        Found::Queued(Some(unreadable)) => unreadable.clone(),
        _ => RunFailure::new(
            ErrorCode::RunMissing,
            format!(
                "no run of workflow {id} is in the database: a run begins with POST /intents/:id/run or as a fork of \
                 one, and a client of the engine cannot enqueue it"
            ),
        ),
    };
    end_unreadable(worker, id.as_str(), intent_run::WORKFLOW, failure).await
}

/// Ends a workflow in the queue that cannot be carried out, with an error that says why.
pub(crate) async fn end_unreadable(
    worker: &Worker,
    id: &str,
    name: &'static str,
    failure: RunFailure,
) -> Result<(), RunFailure> {
    let it = Arc::new(Owned {
        workflow_id: id.to_owned(),
        owner: execution_id(),
    });
    let begin = Begin {
        name,
        input: String::new(),
        executor_id: Arc::clone(&worker.executor_id),
        finds: Finds::Queued,
    };
    tracing::warn!(workflow.id = id, reason = %failure, "a workflow is refused");
    if begun(worker, &it, begin).await?.is_some() {
        let journal = worker.shared.system_db.journal.clone();
        let workflow = Workflow::new(it, journal, worker.shared.ctx.linger, None, HashMap::new());
        workflow.end::<()>(&Err(failure)).await?;
    }
    Ok(())
}

/// Carries out a crash demo that begins, or that is in the queue.
pub(crate) async fn execute_demo(
    worker: Arc<Worker>,
    it: Arc<Owned>,
    input: DemoInput,
    history: HashMap<i32, RecordedStep>,
) {
    let shared = &*worker.shared;
    tracing::info!(workflow.id = it.workflow_id, "crash demo started");
    let journal = shared.system_db.journal.clone();
    let workflow = Workflow::new(Arc::clone(&it), journal, shared.ctx.linger, None, history);
    let body = crash_demo::run(&shared.ctx, &workflow, &input);
    let ended = carry_out(&worker, &workflow, None, body).await;
    match ended {
        Ok(_) => tracing::info!(workflow.id = it.workflow_id, "crash demo ended"),
        Err(error) => {
            tracing::warn!(workflow.id = it.workflow_id, %error, "crash demo ended early")
        }
    }
}
