//! Launching: from here on a worker carries workflows out under its executor id.

use std::sync::Arc;
use std::time::Duration;

use kodo_store::DatabaseConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EngineConfig;
use crate::failpoint;
use crate::run::crash_demo;
use crate::run::workflow as intent_run;
use crate::sysdb::locks::lock_launch;
use crate::sysdb::names::executor_id;
use crate::workers::error::WorkerError;
use crate::workers::shared::Shared;

/// Pause between two attempts to launch.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Connections that migrate schema `dbos`, and how long a statement waits for one.
const MIGRATING: u32 = 2;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bound on one attempt to launch, once schema `dbos` is migrated.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long executions that have ended may still record that, once the launch is over. The rest is left to the next
/// worker.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The names of the workflows that this version knows. Another one is left to a version that does.
pub(crate) const WORKFLOWS: [&str; 2] = [intent_run::WORKFLOW, crash_demo::WORKFLOW];

/// A worker between one launch under a slot and its end.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) executor_id: Arc<str>,
    /// The crash demo's durable sleep.
    pub(crate) crash_demo_sleep_ms: u64,
    /// Cancelled when this launch ends: no body goes on from there.
    pub(crate) over: CancellationToken,
    /// Cancelled when nothing is recorded any more.
    gone: CancellationToken,
    tasks: TaskTracker,
}

impl Worker {
    /// Runs an execution on a task of its own.
    pub(crate) fn spawn(&self, execution: impl Future<Output = ()> + Send + 'static) {
        let gone = self.gone.clone();
        self.tasks.spawn(async move {
            let _ = gone.run_until_cancelled(execution).await;
        });
    }

    /// Ends this launch. Bodies end where they are; what has ended may be recorded for a bounded time.
    pub(crate) async fn end(&self) {
        self.over.cancel();
        self.tasks.close();
        if tokio::time::timeout(FLUSH_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                executions = self.tasks.len(),
                "executions could not record their end in time; left to the next worker"
            );
            self.gone.cancel();
            self.tasks.wait().await;
        }
    }
}

/// Tries to launch until it succeeds.
pub(crate) async fn launch_patiently(
    shared: &Arc<Shared>,
    config: &EngineConfig,
    slot: i32,
) -> Worker {
    loop {
        let failed = match launch(shared, config, slot).await {
            Ok(worker) => return worker,
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

/// Brings the engine's schema up, and returns this slot's unfinished work to the queue.
async fn launch(
    shared: &Arc<Shared>,
    config: &EngineConfig,
    slot: i32,
) -> Result<Worker, WorkerError> {
    let executor_id = executor_id(slot);
    // A workflow that the tests do not know fails them.
    for workflow in WORKFLOWS {
        failpoint(&format!("register:{workflow}"));
    }
    // One launch at a time: the engine's migrations take no lock of their own, and two of them on an empty database drop each
    // other's unfinished indexes. The lock is released with its connection.
    let mut alone = config.system.connect("kodo-launch").await?;
    lock_launch(&mut alone, shared.system_db.lock_class).await?;
    let launching = shared.standstill.launching();
    // This worker holds the slot, so whoever had these claims has ended, or records nothing any more.
    shared.ctx.store.end_claims_of(&executor_id).await?;
    migrate(&config.system).await?;
    let recovering = async {
        failpoint("launch:before");
        shared.system_db.register_version().await?;
        shared.system_db.reenqueue(&executor_id).await?;
        failpoint("launch:committed");
        Ok::<_, WorkerError>(())
    };
    let recovered = tokio::time::timeout(LAUNCH_TIMEOUT, recovering).await;
    recovered.unwrap_or(Err(WorkerError::NoAnswer(LAUNCH_TIMEOUT)))?;
    sqlx::Connection::close(alone).await?;
    drop(launching);
    Ok(Worker {
        shared: Arc::clone(shared),
        executor_id: executor_id.into(),
        crash_demo_sleep_ms: u64::try_from(config.crash_demo_sleep.as_millis()).unwrap_or(u64::MAX),
        over: CancellationToken::new(),
        gone: CancellationToken::new(),
        tasks: TaskTracker::new(),
    })
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
