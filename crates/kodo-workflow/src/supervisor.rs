//! The life of this process's engine: take a slot, launch, work, and stop before anybody takes the slot.

use std::sync::Arc;
use std::time::Duration;

use dbos::{Config, DBOS, StartOptions, WorkflowRef};
use kodo_contract::RunId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::crash_demo::{self, DemoInput};
use crate::engine::{EngineConfig, Shared};
use crate::failure::RunFailure;
use crate::guard::guard;
use crate::intent_run::{self, RunInput, RunOutput};
use crate::slot::{self, Lease};
use crate::stranded::Stranded;
use crate::sweep::{SWEEP_EVERY, sweep};
use crate::system::{APP_NAME, APP_VERSION};
use crate::takeover::Takeover;

/// Pause between two tries to take a slot or to launch.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// A shutdown that takes longer than this is left to the end of the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A run whose body did not begin here in this time was started by somebody else.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// One launch of the engine under one slot.
pub(crate) struct Launched {
    dbos: DBOS,
    pub(crate) executor_id: String,
    pub(crate) crash_demo: WorkflowRef<DemoInput, (), RunFailure>,
    intent_run: WorkflowRef<RunInput, RunOutput, RunFailure>,
}

/// Keeps an engine launched until told to stop. Every loss of the slot ends one launch and begins the next.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    config: EngineConfig,
    launched: watch::Sender<Option<Arc<Launched>>>,
    stop: CancellationToken,
) {
    while let Some(mut lease) = until(&stop, take_slot(&shared, &config)).await {
        let engine = loop {
            match launch(&shared, &config, lease.slot()).await {
                Ok(engine) => break Some(Arc::new(engine)),
                Err(error) => {
                    tracing::warn!(%error, "could not launch the workflow engine; trying again")
                }
            }
            if until(&stop, tokio::time::sleep(TRY_AGAIN)).await.is_none() {
                break None;
            }
        };
        if let Some(engine) = &engine {
            launched.send_replace(Some(Arc::clone(engine)));
            tracing::info!(executor = engine.executor_id, "the workflow engine runs");
            let working = work(&shared, engine, lease.slot());
            tokio::select! {
                lost = lease.keep() => {
                    tracing::error!(reason = ?lost, executor = engine.executor_id, "lost the worker slot; stopping work");
                }
                () = working => {}
                () = stop.cancelled() => {}
            }
            launched.send_replace(None);
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, engine.dbos.shutdown())
                .await
                .is_err()
            {
                tracing::warn!("the workflow engine did not shut down in time");
            }
            shared.starter.clear();
        }
        if stop.is_cancelled() {
            lease.release(&shared.shop.store).await;
            return;
        }
    }
}

/// The result of `work`, or `None` if the process is to stop first.
async fn until<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

async fn take_slot(shared: &Shared, config: &EngineConfig) -> Lease {
    loop {
        let taken = async {
            // The lock lives in the system database, so that has to be there before the engine is.
            config.system.ensure_exists().await?;
            Lease::take(&config.system, &shared.shop.store).await
        };
        match taken.await {
            Ok(lease) => return lease,
            Err(error) => tracing::warn!(%error, "could not take a worker slot; trying again"),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Registers the workflows and launches. The engine returns this slot's unfinished work to its queue.
async fn launch(
    shared: &Arc<Shared>,
    config: &EngineConfig,
    slot: i32,
) -> Result<Launched, dbos::Error> {
    let executor_id = slot::executor_id(slot);
    let dbos = DBOS::new(Config {
        app_version: Some(APP_VERSION.to_owned()),
        executor_id: Some(executor_id.clone()),
        max_connections: config.engine_connections,
        ..Config::new(APP_NAME, config.system.url())
    });
    // The list of workflows. They share what this process works with, and never the engine itself: that
    // would keep it alive for ever.
    let with = Arc::clone(shared);
    let intent_run = dbos.register_workflow(intent_run::WORKFLOW, move |input: RunInput| {
        let shared = Arc::clone(&with);
        async move { run_intent(&shared, &input.run_id).await }
    })?;
    let with = Arc::clone(shared);
    let crash_demo = dbos.register_workflow(crash_demo::WORKFLOW, move |input: DemoInput| {
        let shared = Arc::clone(&with);
        async move { run_crash_demo(&shared, &input).await }
    })?;
    dbos.launch().await?;
    Ok(Launched {
        dbos,
        executor_id,
        crash_demo,
        intent_run,
    })
}

async fn run_intent(shared: &Shared, run_id: &RunId) -> dbos::Result<RunOutput, RunFailure> {
    let execution = shared.starter.enter(run_id.as_str());
    let fresh = execution.is_fresh();
    tracing::info!(run.id = %run_id, recovered = !fresh, "run started");
    let outcome = guard(intent_run::run(&shared.shop, run_id, fresh)).await;
    drop(execution);
    if !fresh {
        // Nobody holds a handle to a recovered run, so its end is announced from here.
        shared.settler.ended(run_id.clone());
    }
    outcome
}

async fn run_crash_demo(shared: &Shared, input: &DemoInput) -> dbos::Result<(), RunFailure> {
    let workflow_id = dbos::workflow_id().unwrap_or_default();
    let _execution = shared.starter.enter(&workflow_id);
    tracing::info!(workflow.id = workflow_id, "crash demo started");
    let outcome = guard(crash_demo::run(&shared.shop, &workflow_id, input)).await;
    tracing::info!(workflow.id = workflow_id, "crash demo ended");
    outcome
}

/// Starts what is offered and sweeps, for as long as it is polled.
async fn work(shared: &Arc<Shared>, engine: &Arc<Launched>, slot: i32) {
    let starting = async {
        loop {
            let run_id = shared.starter.next().await;
            tokio::spawn(start(Arc::clone(shared), Arc::clone(engine), run_id));
        }
    };
    let sweeping = async {
        let mut takeover = Takeover::default();
        let mut stranded = Stranded::default();
        loop {
            let swept = async {
                takeover.look(shared, slot).await?;
                stranded.look(shared, &engine.executor_id).await?;
                sweep(shared).await
            };
            if let Err(error) = swept.await {
                tracing::warn!(%error, "the sweep ended early; it comes again");
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    };
    let ((), ()) = tokio::join!(starting, sweeping);
}

/// Hands a run to the engine and reports its end. Idempotent by workflow id: a run that somebody else has
/// started is left to them.
async fn start(shared: Arc<Shared>, engine: Arc<Launched>, run_id: RunId) {
    let input = RunInput {
        run_id: run_id.clone(),
    };
    let options = StartOptions {
        workflow_id: Some(run_id.as_str()),
        ..StartOptions::default()
    };
    let handle = match engine.intent_run.start_with(input, options).await {
        Ok(handle) => handle,
        Err(error) => {
            shared.starter.forget(&run_id);
            tracing::warn!(run.id = %run_id, %error, "could not start the run; left to the sweep");
            return;
        }
    };
    let mut result = Box::pin(handle.result());
    if tokio::time::timeout(BEGIN_TIMEOUT, &mut result)
        .await
        .is_err()
    {
        if shared.starter.forget(&run_id) {
            return;
        }
        // Its outcome is in the row; what matters here is that it is there.
        let _ = result.await;
    }
    shared.starter.forget(&run_id);
    shared.settler.ended(run_id);
}
