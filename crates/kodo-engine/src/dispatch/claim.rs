//! Hands the runs of the dispatcher to the engine and reports their end, for one launch of the engine.

use std::sync::Arc;
use std::time::Duration;

use dbos::{StartOptions, WorkflowRef};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::dispatch::dispatcher::{Dispatcher, Offer};
use crate::drain::Drain;
use crate::failpoint;
use crate::failure::RunFailure;
use crate::run::workflow::{RunInput, RunOutput};
use crate::settle::settler::Settler;
use crate::sysdb::system_db::SystemDb;
use crate::workers::stall::Awaited;

/// A run whose body did not begin here in this time was probably started by another worker, and releases its place in
/// this process.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(100);

/// A start that takes longer is told, each time that this has passed.
const SLOW_START: Duration = Duration::from_secs(5);

/// How many connections are tried for one start. Not more: where a lock keeps one waiting, it keeps all.
const ATTEMPTS: usize = 2;

/// Starts runs under one launch of the engine.
pub(crate) struct Claims {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) system_db: Arc<SystemDb>,
    pub(crate) settler: Settler,
    pub(crate) drain: Arc<Drain>,
    pub(crate) awaited: Arc<Awaited>,
    pub(crate) intent_run: WorkflowRef<Option<RunInput>, RunOutput, RunFailure>,
    /// Cancelled when the launch ends.
    pub(crate) over: CancellationToken,
}

impl Claims {
    /// Starts each run that the dispatcher has room for, until the process drains.
    pub(crate) async fn work(self) {
        let claims = Arc::new(self);
        loop {
            let offer = claims.dispatcher.next().await;
            if claims.drain.has_begun() {
                // It stays a row, which the next worker finds.
                claims.dispatcher.release(&offer.workflow_id);
                return;
            }
            let claims = Arc::clone(&claims);
            tokio::spawn(async move { claims.start(offer).await });
        }
    }

    /// Starts a run and reports its end. Idempotent, because the workflow has the id that the run's row names: a run that another worker
    /// has started is left to that worker.
    async fn start(&self, offer: Offer) {
        let Offer {
            run_id,
            workflow_id,
            swept,
        } = offer;
        if swept
            && matches!(self.system_db.workflows(&[workflow_id.as_str()]).await, Ok(rows) if !rows.is_empty())
        {
            self.dispatcher.release(&workflow_id);
            return;
        }
        let attempt = || {
            let input = RunInput {
                run_id: run_id.clone(),
            };
            let options = StartOptions {
                workflow_id: Some(workflow_id.as_str()),
                ..StartOptions::default()
            };
            // A start waits for the server without bound. If it outlived its launch, it would write a row that says
            // that the run executes here, after the next launch has looked for such rows.
            self.over
                .run_until_cancelled(self.intent_run.start_with(Some(input), options))
        };
        failpoint("start:before");
        let what = format!("the start of {run_id}");
        self.awaited.begin(&what);
        let mut attempts = FuturesUnordered::from_iter([attempt()]);
        let started = loop {
            match tokio::time::timeout(SLOW_START, attempts.next()).await {
                Ok(started) => break started.flatten(),
                Err(_) => {
                    tracing::warn!(run.id = %run_id, "the engine does not answer to the start of a run; still waiting");
                    // One connection may be stuck alone. The workflow's id makes two starts one.
                    if attempts.len() < ATTEMPTS {
                        attempts.push(attempt());
                    }
                }
            }
        };
        self.awaited.end(&what);
        let handle = match started {
            Some(Ok(handle)) => handle,
            None => {
                self.dispatcher.release(&workflow_id);
                return;
            }
            Some(Err(error)) => {
                self.dispatcher.release(&workflow_id);
                tracing::warn!(run.id = %run_id, %error, "could not start the run; left to the sweep");
                return;
            }
        };
        let mut result = Box::pin(handle.result());
        if tokio::time::timeout(BEGIN_TIMEOUT, &mut result)
            .await
            .is_err()
        {
            if self.dispatcher.release(&workflow_id) {
                // Another worker started it. Or its body is about to begin here: then it takes a place and reports
                // its end as a recovered body does.
                return;
            }
            // The outcome itself is read from the row; here it matters only that it is recorded.
            let _ = result.await;
        }
        self.dispatcher.release(&workflow_id);
        self.settler.ended(workflow_id.to_string());
    }
}
