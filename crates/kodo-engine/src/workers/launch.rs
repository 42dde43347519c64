//! Launching the engine under a slot: registers the workflows, with what surrounds the body of each.

use std::sync::Arc;
use std::time::Duration;

use dbos::{Config, DBOS, WorkflowRef};
use kodo_store::DatabaseConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::config::EngineConfig;
use crate::failpoint;
use crate::failure::RunFailure;
use crate::run::crash_demo::{self, DemoInput};
use crate::run::guard::guard;
use crate::run::workflow::{self as intent_run, RunInput, RunOutput};
use crate::sysdb::locks::lock_launch;
use crate::sysdb::names::{app_name, app_version, executor_id};
use crate::sysdb::relay::Relay;
use crate::workers::error::WorkerError;
use crate::workers::execute::execute;
use crate::workers::shared::Shared;

/// Pause between two attempts to launch.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Connections that migrate schema `dbos`, and how long a statement waits for one.
const MIGRATING: u32 = 2;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bound on one attempt to launch, once schema `dbos` is migrated.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// One launch of the engine under one slot.
pub(crate) struct Launch {
    pub(crate) dbos: DBOS,
    pub(crate) executor_id: String,
    pub(crate) crash_demo: WorkflowRef<DemoInput, (), RunFailure>,
    /// The crash demo's durable sleep.
    pub(crate) crash_demo_sleep_ms: u64,
    pub(crate) intent_run: WorkflowRef<Option<RunInput>, RunOutput, RunFailure>,
    /// What the engine connects through, if a pooler refuses it otherwise.
    _relay: Option<Relay>,
    /// Cancelled when this launch ends.
    pub(crate) over: CancellationToken,
}

/// Tries to launch until it succeeds.
pub(crate) async fn launch_patiently(
    shared: &Arc<Shared>,
    config: &EngineConfig,
    slot: i32,
) -> Launch {
    loop {
        let failed = match launch(shared, config, slot).await {
            Ok(engine) => return engine,
            Err(error) => error.explained(&config.system).await,
        };
        // The same reason is told once.
        if shared.standstill.set(Some(failed.clone())) {
            tracing::warn!(
                error = failed,
                "could not launch the workflow engine; trying again"
            );
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Registers the workflows and launches. The engine returns this slot's unfinished work to its queue.
async fn launch(
    shared: &Arc<Shared>,
    config: &EngineConfig,
    slot: i32,
) -> Result<Launch, WorkerError> {
    let executor_id = executor_id(slot);
    let relay = match config.system.refuses_engine().await? {
        true => Some(Relay::start(&config.system)?),
        false => None,
    };
    let url = match &relay {
        Some(relay) => relay.database().url(),
        None => config.system.url(),
    };
    let dbos = DBOS::new(Config {
        app_version: Some(app_version(&config.instance)),
        executor_id: Some(executor_id.clone()),
        max_connections: config.engine_connections,
        ..Config::new(app_name(&config.instance), url)
    });
    // The list of workflows. Their closures must not hold the engine itself, which would keep it alive for ever.
    let with = Arc::clone(shared);
    let worker: Arc<str> = executor_id.as_str().into();
    let intent_run = register(&dbos, intent_run::WORKFLOW, move |_: Option<RunInput>| {
        let (shared, worker) = (Arc::clone(&with), Arc::clone(&worker));
        async move { execute(&shared, &worker).await }
    })?;
    let with = Arc::clone(shared);
    let crash_demo = register(&dbos, crash_demo::WORKFLOW, move |input: DemoInput| {
        let shared = Arc::clone(&with);
        async move { run_crash_demo(&shared, &input).await }
    })?;
    // One launch at a time: the engine's migrations take no lock of their own, and two of them on an empty database
    // drop each other's unfinished indexes. The lock is released with its connection.
    let mut alone = config.system.connect("kodo-launch").await?;
    lock_launch(&mut alone, shared.system_db.lock_class).await?;
    let _launching = shared.standstill.launching();
    // This worker holds the slot, so whoever had these claims has ended, or records nothing any more.
    shared.ctx.store.end_claims_of(&executor_id).await?;
    migrate(&config.system).await?;
    let abandoned = Abandoned(Some(dbos.clone()));
    let launching = dbos.clone();
    let task = tokio::spawn(async move {
        failpoint("launch:before");
        launching.launch().await?;
        failpoint("launch:committed");
        sqlx::Connection::close(alone).await?;
        Ok::<_, WorkerError>(())
    });
    match tokio::time::timeout(LAUNCH_TIMEOUT, task).await {
        Err(_) => return Err(WorkerError::NoAnswer(LAUNCH_TIMEOUT)),
        Ok(Ok(launched)) => launched.inspect(|()| abandoned.disarm())?,
        Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Ok(Err(_)) => std::future::pending().await,
    }
    Ok(Launch {
        dbos,
        executor_id,
        crash_demo,
        crash_demo_sleep_ms: u64::try_from(config.crash_demo_sleep.as_millis()).unwrap_or(u64::MAX),
        intent_run,
        _relay: relay,
        over: CancellationToken::new(),
    })
}

/// Shuts an engine down whose launch nobody waits for any more, once the launch has ended. A launch that is dropped in its
/// middle would leave its connections open for ever, and each further attempt would add to them; so it goes on, on a task of
/// its own, and keeps the lock of launches, for which the next attempt waits.
struct Abandoned(Option<DBOS>);

impl Abandoned {
    /// Says that somebody has waited for the launch.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(dbos) = self.0.take() {
            tokio::spawn(async move { dbos.shutdown().await });
        }
    }
}

/// Brings schema `dbos` to the engine's version by sessions of our own: the engine's would go on after a process that was
/// ended in its start, and what they wait for would hold up the next start. Not bounded in time: an index of a large table
/// takes long, and who keeps it waiting is told meanwhile. The loss of the slot ends it.
async fn migrate(system: &DatabaseConfig) -> Result<(), WorkerError> {
    let pool = kodo_store::pool(
        system.connect_options("kodo-launch"),
        MIGRATING,
        ACQUIRE_TIMEOUT,
    );
    let migrating = std::pin::pin!(dbos::sysdb::migrations::runner::run(
        &pool,
        dbos::sysdb::DEFAULT_SCHEMA,
        true
    ));
    // Declared after what it ends, so dropped before it: a connection that is given back to a closed pool is closed at
    // once, and its statement with it.
    let _closing = Closing(&pool);
    migrating.await?;
    Ok(())
}

/// Closes a pool when it is dropped.
struct Closing<'a>(&'a sqlx::PgPool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        // The pool is closed by the call; what it returns waits until its connections are.
        drop(self.0.close());
    }
}

/// Registers a workflow with the engine. The fail point tells the tests its name: a workflow that they do not know fails
/// them.
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

async fn run_crash_demo(shared: &Shared, input: &DemoInput) -> dbos::Result<(), RunFailure> {
    let workflow_id = dbos::workflow_id().unwrap_or_default();
    let _execution = shared.dispatcher.begin(&workflow_id);
    tracing::info!(workflow.id = workflow_id, "crash demo started");
    let outcome = guard(crash_demo::run(&shared.ctx, &workflow_id, input)).await;
    tracing::info!(workflow.id = workflow_id, "crash demo ended");
    outcome
}
