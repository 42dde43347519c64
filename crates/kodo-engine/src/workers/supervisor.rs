//! The life of this process's engine: take a slot, launch, work, and stop before another worker may take the slot.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::EngineConfig;
use crate::launched::{Launched, Reach};
use crate::workers::error::WorkerError;
use crate::workers::execute::execute;
use crate::workers::forks::adopt_forks;
use crate::workers::idle::Idle;
use crate::workers::launch::{Worker, launch_patiently};
use crate::workers::lease::Lease;
use crate::workers::queue;
use crate::workers::shared::Shared;
use crate::workers::stall;
use crate::workers::sweep::{Overdue, SWEEP, SWEEP_EVERY, end_forgotten_claims, sweep};
use crate::workers::takeover::Takeover;

/// Pause between two attempts to take a slot.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Pause between two looks at the engine's queue: as long as the engine's own workers pause.
const LOOK_AT_QUEUE_EVERY: Duration = Duration::from_secs(1);

/// Bound on one attempt to take a slot, and on each of the periodic checks. None of its statements has a bound of its own:
/// without this one, a lock that somebody holds on a table would silence the worker for as long.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// Keeps an engine launched until told to stop. Every loss of the slot ends one launch and begins the next.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    config: EngineConfig,
    launched: watch::Sender<Option<Launched>>,
    stop: CancellationToken,
) {
    let taking = || async {
        tokio::select! {
            lease = take_slot(&shared, &config) => lease,
            never = watch(&shared, &config) => match never {},
        }
    };
    while let Some(mut lease) = stop.run_until_cancelled(taking()).await {
        let slot = lease.slot();
        // The lease is kept during the launch, too: a launch returns the slot's unfinished work to the queue, and
        // the slot must not belong to another worker by then.
        let worker = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            lost = lease.keep() => {
                tracing::error!(reason = ?lost, slot, "lost the worker slot while launching");
                continue;
            }
            never = watch(&shared, &config) => match never {},
            worker = launch_patiently(&shared, &config, slot) => Some(Arc::new(worker)),
        };
        if let Some(worker) = &worker {
            shared.standstill.set(None);
            launched.send_replace(Some(Launched(Reach::Worker(Arc::clone(worker)))));
            tracing::info!(executor = &*worker.executor_id, "the workflow engine runs");
            tokio::select! {
                lost = lease.keep() => {
                    tracing::error!(reason = ?lost, executor = &*worker.executor_id, "lost the worker slot; stopping work");
                }
                () = work(worker, slot) => {}
                () = stop.cancelled() => {}
            }
            launched.send_replace(None);
            worker.end().await;
            shared.dispatcher.clear();
            shared.awaited.clear();
        }
        if stop.is_cancelled() {
            lease.release().await;
            return;
        }
    }
}

async fn watch(shared: &Shared, config: &EngineConfig) -> Infallible {
    let class = shared.system_db.lock_class;
    let standstill = &shared.standstill;
    standstill
        .watch(&shared.ctx.store, &config.system, class)
        .await
}

async fn take_slot(shared: &Shared, config: &EngineConfig) -> Lease {
    loop {
        let taken = async {
            // The lock is in the system database, so that has to exist before the engine is launched. And a run that
            // was begun from another system database must not be begun again from this one.
            shared.ctx.store.bind(&config.system).await?;
            // The connections are new: a pooler may have come in between.
            config.system.check_requirements().await?;
            let lease = Lease::take(
                &config.system,
                &shared.ctx.store,
                shared.system_db.lock_class,
            )
            .await?;
            match shared.ctx.store.confirm_binding(&config.system).await {
                Ok(()) => Ok(lease),
                Err(error) => {
                    lease.release().await;
                    Err(error.into())
                }
            }
        };
        match bounded(taken).await {
            Ok(lease) => return lease,
            Err(error) => {
                // The same reason is told once.
                let error = error.explained(&config.system).await;
                if shared.standstill.set(Some(error.clone())) {
                    tracing::warn!(error, "could not take a worker slot; trying again");
                }
            }
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Ends what a worker does for itself after [`CHECK_TIMEOUT`].
async fn bounded<T>(work: impl Future<Output = Result<T, WorkerError>>) -> Result<T, WorkerError> {
    let done = tokio::time::timeout(CHECK_TIMEOUT, work).await;
    done.unwrap_or(Err(WorkerError::NoAnswer(CHECK_TIMEOUT)))
}

/// One of the periodic checks. What does not end, or meets a database that does not answer, is awaited until it succeeds.
async fn check(
    shared: &Shared,
    what: &'static str,
    work: impl Future<Output = Result<(), WorkerError>>,
) {
    shared.awaited.begin(what);
    match bounded(work).await {
        Ok(()) => shared.awaited.end(what),
        Err(error) => {
            if !error.is_no_answer() {
                shared.awaited.end(what);
            }
            tracing::warn!(%error, "{what} ended early; it comes again");
        }
    }
}

/// Carries out offered runs, looks at the engine's queue, sweeps and takes over periodically, for as long as it is polled.
async fn work(worker: &Arc<Worker>, slot: i32) {
    let shared = &worker.shared;
    let executing = async {
        loop {
            let execution = shared.dispatcher.next().await;
            if shared.ctx.drain.has_begun() {
                // It stays a row, which the next worker finds.
                return std::future::pending().await;
            }
            worker.spawn(execute(Arc::clone(worker), execution));
        }
    };
    let queueing = async {
        loop {
            if !shared.ctx.drain.has_begun() {
                check(shared, "the look at the queue", queue::look(worker)).await;
            }
            tokio::time::sleep(LOOK_AT_QUEUE_EVERY).await;
        }
    };
    let sweeping = async {
        let mut takeover = Takeover::default();
        let mut idle = Idle::default();
        let mut overdue = Overdue::default();
        let executor_id = &*worker.executor_id;
        loop {
            // Independent of each other: a failure of one must not keep the others from working.
            check(shared, "the takeover", takeover.check(shared, slot)).await;
            check(
                shared,
                "the check of idle workflows",
                idle.check(shared, executor_id),
            )
            .await;
            let forgotten = end_forgotten_claims(shared, executor_id);
            check(shared, "the look at claims", forgotten).await;
            check(shared, "the look at forks", adopt_forks(shared)).await;
            check(shared, SWEEP, sweep(shared, &mut overdue)).await;
            check(
                shared,
                "the look at the engine's schema",
                shared.look_at_schema(),
            )
            .await;
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    };
    tokio::select! {
        ((), (), ()) = async { tokio::join!(executing, queueing, sweeping) } => {}
        never = stall::watch(shared) => match never {},
    }
}
