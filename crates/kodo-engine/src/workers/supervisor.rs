//! The life of this process's engine: take a slot, launch, work, and stop before anybody takes the slot.

use std::sync::Arc;
use std::time::Duration;

use dbos::{Config, DBOS, StartOptions, WorkflowRef};
use kodo_contract::RunId;
use kodo_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failpoint;
use crate::failure::RunFailure;
use crate::handle::{EngineConfig, Shared};
use crate::run::crash_demo::{self, DemoInput};
use crate::run::durable::weather;
use crate::run::guard::guard;
use crate::run::workflow::{self as intent_run, RunInput, RunOutput};
use crate::sysdb::system::{app_name, app_version};
use crate::workers::slot::{self, Lease, TakeError};
use crate::workers::stranded::Stranded;
use crate::workers::sweep::{SWEEP_EVERY, sweep};
use crate::workers::takeover::Takeover;

/// Pause between two tries to take a slot or to launch.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// A shutdown that takes longer than this goes on without anybody waiting: it ends with a last write, which in an
/// outage waits for the server.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Bound on one try to launch.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Second key of the advisory lock under which an engine is launched; slots have the numbers from 0.
const LAUNCH_LOCK: i32 = -2;

/// A run whose body did not begin here in this time was probably started by somebody else, and gives its room
/// back.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(100);

/// One launch of the engine under one slot.
pub(crate) struct Launched {
    dbos: DBOS,
    pub(crate) executor_id: String,
    pub(crate) crash_demo: WorkflowRef<DemoInput, (), RunFailure>,
    intent_run: WorkflowRef<RunInput, RunOutput, RunFailure>,
    /// Cancelled when this launch ends.
    over: CancellationToken,
}

/// Keeps an engine launched until told to stop. Every loss of the slot ends one launch and begins the next.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    config: EngineConfig,
    launched: watch::Sender<Option<Arc<Launched>>>,
    stop: CancellationToken,
) {
    while let Some(mut lease) = until(&stop, take_slot(&shared, &config)).await {
        let slot = lease.slot();
        // The slot is kept while the engine is launched, too: a launch returns the slot's unfinished work to
        // the queue, and by then the slot must not be somebody else's.
        let engine = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            lost = lease.keep() => {
                tracing::error!(reason = ?lost, slot, "lost the worker slot while launching");
                continue;
            }
            engine = launch_patiently(&shared, &config, slot) => Some(Arc::new(engine)),
        };
        if let Some(engine) = &engine {
            launched.send_replace(Some(Arc::clone(engine)));
            tracing::info!(executor = engine.executor_id, "the workflow engine runs");
            tokio::select! {
                lost = lease.keep() => {
                    tracing::error!(reason = ?lost, executor = engine.executor_id, "lost the worker slot; stopping work");
                }
                () = work(&shared, engine, slot) => {}
                () = stop.cancelled() => {}
            }
            launched.send_replace(None);
            engine.over.cancel();
            // On a task of its own: a shutdown that is dropped half-way leaves its connections open for ever.
            let ended = Arc::clone(engine);
            let shutdown = tokio::spawn(async move { ended.dbos.shutdown().await });
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, shutdown)
                .await
                .is_err()
            {
                tracing::warn!("the workflow engine did not shut down in time");
            }
            shared.starter.clear();
        }
        if stop.is_cancelled() {
            lease.release().await;
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
            // The lock lives in the system database, so that has to be there before the engine is; and no work is begun
            // from it that was begun from another one.
            shared.shop.store.bind(&config.system).await?;
            let lease = Lease::take(&config.system, &shared.shop.store, shared.lock_class).await?;
            match shared.shop.store.confirm_binding(&config.system).await {
                Ok(()) => Ok(lease),
                Err(error) => {
                    lease.release().await;
                    Err(error.into())
                }
            }
        };
        let taken: Result<Lease, TakeError> = taken.await;
        match taken {
            Ok(lease) => return lease,
            Err(error) => tracing::warn!(%error, "could not take a worker slot; trying again"),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Launches until it works.
async fn launch_patiently(shared: &Arc<Shared>, config: &EngineConfig, slot: i32) -> Launched {
    loop {
        let failed = match tokio::time::timeout(LAUNCH_TIMEOUT, launch(shared, config, slot)).await
        {
            Ok(Ok(engine)) => return engine,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done within {LAUNCH_TIMEOUT:?}"),
        };
        tracing::warn!(
            error = failed,
            "could not launch the workflow engine; trying again"
        );
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Why a launch failed.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error(transparent)]
    Engine(#[from] dbos::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for LaunchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Registers the workflows and launches. The engine returns this slot's unfinished work to its queue.
async fn launch(
    shared: &Arc<Shared>,
    config: &EngineConfig,
    slot: i32,
) -> Result<Launched, LaunchError> {
    let executor_id = slot::executor_id(slot);
    let dbos = DBOS::new(Config {
        app_version: Some(app_version(&config.instance)),
        executor_id: Some(executor_id.clone()),
        max_connections: config.engine_connections,
        ..Config::new(app_name(&config.instance), config.system.url())
    });
    // The list of workflows. They share what this process works with, and never the engine itself: that
    // would keep it alive for ever.
    let with = Arc::clone(shared);
    let intent_run = register(&dbos, intent_run::WORKFLOW, move |input: RunInput| {
        let shared = Arc::clone(&with);
        async move { run_intent(&shared, &input.run_id).await }
    })?;
    let with = Arc::clone(shared);
    let crash_demo = register(&dbos, crash_demo::WORKFLOW, move |input: DemoInput| {
        let shared = Arc::clone(&with);
        async move { run_crash_demo(&shared, &input).await }
    })?;
    // One at a time: the engine's migrations take no lock of their own, and two of them on an empty database
    // drop each other's half-made indexes. The lock goes with its connection.
    let mut alone = config.system.connect("kodo-launch").await?;
    sqlx::query("SELECT pg_advisory_lock($1, $2)")
        .bind(shared.lock_class)
        .bind(LAUNCH_LOCK)
        .execute(&mut alone)
        .await?;
    failpoint("launch:before");
    dbos.launch().await?;
    failpoint("launch:committed");
    sqlx::Connection::close(alone).await?;
    Ok(Launched {
        dbos,
        executor_id,
        crash_demo,
        intent_run,
        over: CancellationToken::new(),
    })
}

/// Registers a workflow with the engine, and its name with the tests: one that they do not know fails them.
fn register<P, R, F, Fut>(
    dbos: &DBOS,
    name: &str,
    body: F,
) -> dbos::Result<WorkflowRef<P, R, RunFailure>>
where
    F: Fn(P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = dbos::Result<R, RunFailure>> + Send + 'static,
    P: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    failpoint(&format!("register:{name}"));
    dbos.register_workflow(name, body)
}

async fn run_intent(shared: &Shared, run_id: &RunId) -> dbos::Result<RunOutput, RunFailure> {
    let mut execution = shared.starter.enter(run_id.as_str());
    let recovered = !execution.is_started_here();
    if recovered {
        execution.take_room().await;
        // A recovered run is usually one that was interrupted, and sometimes one that was over and was resumed
        // through the engine. A refusal is no reason to end it: its status is settled at its end.
        failpoint("recover:before");
        match weather(|| shared.shop.store.reopen(run_id)).await {
            Ok(true) => tracing::info!(run.id = %run_id, "the run is open again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(run.id = %run_id, %error, "could not open the run again"),
        }
        failpoint("recover:committed");
    }
    tracing::info!(run.id = %run_id, recovered, "run started");
    let outcome = guard(intent_run::run(&shared.shop, run_id)).await;
    drop(execution);
    if recovered {
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
            let (run_id, swept) = shared.starter.next().await;
            if shared.shop.gate.is_closed() {
                // It stays a row; whoever is next finds it.
                shared.starter.forget(&run_id);
                return;
            }
            tokio::spawn(start(Arc::clone(shared), Arc::clone(engine), run_id, swept));
        }
    };
    let sweeping = async {
        let mut takeover = Takeover::default();
        let mut stranded = Stranded::default();
        loop {
            // Each for itself: what keeps one from its work must not keep the others from theirs.
            let looked = [
                ("takeover", takeover.look(shared, slot).await),
                ("stranded", stranded.look(shared, &engine.executor_id).await),
                ("sweep", sweep(shared).await),
            ];
            for (what, outcome) in looked {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "the {what} ended early; it comes again");
                }
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    };
    let ((), ()) = tokio::join!(starting, sweeping);
}

/// Hands a run to the engine and reports its end. Idempotent by workflow id: a run that somebody else has
/// started is left to them.
async fn start(shared: Arc<Shared>, engine: Arc<Launched>, run_id: RunId, swept: bool) {
    if swept
        && matches!(shared.system.workflows(&[run_id.as_str()]).await, Ok(rows) if !rows.is_empty())
    {
        shared.starter.forget(&run_id);
        return;
    }
    let input = RunInput {
        run_id: run_id.clone(),
    };
    let options = StartOptions {
        workflow_id: Some(run_id.as_str()),
        ..StartOptions::default()
    };
    // A start waits for the server as long as it takes. One that outlived its launch would write a row that says
    // it runs here, after the next launch has looked for such rows.
    failpoint("start:before");
    let started = until(&engine.over, engine.intent_run.start_with(input, options)).await;
    let handle = match started {
        Some(Ok(handle)) => handle,
        None => {
            shared.starter.forget(&run_id);
            return;
        }
        Some(Err(error)) => {
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
            // Started by somebody else. Or the body is about to begin here, and then it takes room and reports
            // its end like a recovered one.
            return;
        }
        // Its outcome is in the row; what matters here is that it is there.
        let _ = result.await;
    }
    shared.starter.forget(&run_id);
    shared.settler.ended(run_id);
}
