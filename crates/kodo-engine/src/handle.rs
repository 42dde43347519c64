//! The engine as the rest of the process sees it.

use std::sync::Arc;
use std::time::Duration;

use dbos::StartOptions;
use kodo_contract::{RunId, WorkflowId};
use kodo_planner::Planner;
use kodo_sandbox::{Limits, Sandbox, SecretFolder};
use kodo_store::content::ArtifactStore;
use kodo_store::{DatabaseConfig, Store};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::dispatch::dispatcher::Starter;
use crate::drain::Gate;
use crate::run::crash_demo::DemoInput;
use crate::run::workflow::Workshop;
use crate::settle::settler::{self, Settler};
use crate::sysdb::system::System;
use crate::workers::slot;
use crate::workers::supervisor::{Launched, supervise};

/// How long a client waits for the engine to write down a crash demo, under the contract's five seconds.
const START_TIMEOUT: Duration = Duration::from_millis(3500);

/// Bound on stopping the engine once its steps are over: its own shutdown and giving the slot back.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Bound on settling what ended during a drain.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the engine needs to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Which product database this is, see [`Store::instance`].
    pub instance: String,
    /// The system database.
    pub system: DatabaseConfig,
    /// Connections of the engine's own pool.
    pub engine_connections: u32,
    /// How many runs this process works on at once. Further ones wait as rows.
    pub max_concurrent_runs: usize,
    /// How many tool calls this process carries out at once. Further ones wait, in the order in which they came.
    pub max_concurrent_tool_calls: usize,
    /// Where jobs get their secrets from.
    pub secrets: SecretFolder,
    /// The most that a call of a plan may ask for.
    pub most: Limits,
    /// Durable sleep of the crash demo (`WF_SLEEP_MS`).
    pub crash_demo_sleep: Duration,
    /// How long a step waits for the artifact store before its run fails (`ARTIFACT_STORE_PATIENCE_MS`).
    pub artifact_patience: Duration,
    /// Part of the planner's fixture key and of every deterministic choice (`TEST_SEED`).
    pub seed: u64,
}

/// What workflow bodies, sweeps and the starter share. It never holds the engine: the engine holds it.
pub(crate) struct Shared {
    pub(crate) shop: Workshop,
    pub(crate) system: Arc<System>,
    /// First key of every advisory lock of this product database.
    pub(crate) lock_class: i32,
    pub(crate) starter: Arc<Starter>,
    pub(crate) settler: Settler,
}

/// Why a workflow could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine is not launched, or its database does not answer. Try again.
    #[error("the workflow engine is not available")]
    Unavailable,
    /// The id belongs to a workflow of another kind. Choose another id.
    #[error("the workflow id belongs to another workflow")]
    TakenByAnotherWorkflow,
    /// Anything else, for the log.
    #[error("the workflow engine refused: {0}")]
    Refused(String),
}

/// The durable half of the process: runs go in as rows, and come out as rows.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    sleep: Duration,
    launched: watch::Receiver<Option<Arc<Launched>>>,
    stop: CancellationToken,
    /// Cancelled when the supervisor is over.
    ended: CancellationToken,
}

impl Engine {
    /// Starts the engine's supervisor in the background and returns at once. The store must be migrated.
    ///
    /// Must be called on a Tokio runtime.
    pub fn start(
        config: EngineConfig,
        store: Store,
        artifacts: Arc<dyn ArtifactStore>,
        planner: Arc<dyn Planner>,
        sandbox: Arc<dyn Sandbox>,
    ) -> Self {
        let system = Arc::new(System::new(&config.system, &config.instance));
        let (settler, reports) = Settler::new();
        let shared = Arc::new(Shared {
            shop: Workshop {
                store: store.clone(),
                artifacts,
                artifact_patience: config.artifact_patience,
                planner,
                sandbox,
                secrets: config.secrets.clone(),
                most: config.most,
                slots: Semaphore::new(config.max_concurrent_tool_calls),
                seed: config.seed,
                gate: Gate::default(),
            },
            system: Arc::clone(&system),
            lock_class: slot::lock_class(&config.instance),
            starter: Arc::new(Starter::new(config.max_concurrent_runs)),
            settler: settler.clone(),
        });
        let (sender, launched) = watch::channel(None);
        let stop = CancellationToken::new();
        let sleep = config.crash_demo_sleep;
        let ended = CancellationToken::new();
        // Dropped when the supervisor returns, and also when it panics.
        let over = ended.clone().drop_guard();
        let supervised = supervise(Arc::clone(&shared), config, sender, stop.clone());
        tokio::spawn(async move {
            let _over = over;
            supervised.await;
        });
        tokio::spawn(settler::work(settler, reports, system, store));
        Self(Arc::new(Inner {
            shared,
            sleep,
            launched,
            stop,
            ended,
        }))
    }

    /// Whether workflows run in this process right now.
    pub fn is_launched(&self) -> bool {
        self.0.launched.borrow().is_some()
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.0.shared.shop.gate.is_closed()
    }

    /// The executor id that this process works under, while it is launched.
    pub fn executor_id(&self) -> Option<String> {
        let launched = self.0.launched.borrow();
        launched.as_ref().map(|engine| engine.executor_id.clone())
    }

    /// Waits until workflows run in this process.
    pub async fn launched(&self) {
        let mut launched = self.0.launched.clone();
        // An error means that the supervisor is gone, and then waiting is all that is left.
        if launched.wait_for(Option::is_some).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether the system database answers.
    pub async fn system_database_answers(&self) -> bool {
        self.0.shared.system.ping().await.is_ok()
    }

    /// Says that a run's row is committed. A hint: without it the sweep finds the run.
    pub fn accepted(&self, run_id: &RunId) {
        if self.is_launched() && !self.is_draining() {
            self.0.shared.starter.offer(run_id);
        }
    }

    /// Starts a crash demo and returns once the engine has committed it. Again with the same id it changes
    /// nothing.
    ///
    /// # Errors
    /// [`StartError`], each variant of which says what to do.
    pub async fn start_crash_demo(&self, id: &WorkflowId) -> Result<(), StartError> {
        if RunId::parse(id.as_str()).is_some() {
            // A run's id is its workflow's: here it would take the place of the run's own.
            return Err(StartError::TakenByAnotherWorkflow);
        }
        let engine = self.0.launched.borrow().clone();
        let Some(engine) = engine.filter(|_| !self.is_draining()) else {
            return Err(StartError::Unavailable);
        };
        let input = DemoInput {
            sleep_ms: u64::try_from(self.0.sleep.as_millis()).unwrap_or(u64::MAX),
        };
        let options = StartOptions {
            workflow_id: Some(id.as_str()),
            ..StartOptions::default()
        };
        let starting = engine.crash_demo.start_with(input, options);
        match tokio::time::timeout(START_TIMEOUT, starting).await {
            Ok(Ok(_detached)) => Ok(()),
            // The engine goes on trying; if it succeeds, the client's next try finds the workflow started.
            Err(_) => Err(StartError::Unavailable),
            Ok(Err(dbos::Error::SystemDatabase(dbos::sysdb::Error::ConflictingWorkflow {
                ..
            }))) => Err(StartError::TakenByAnotherWorkflow),
            Ok(Err(
                dbos::Error::Interrupted { .. }
                | dbos::Error::NotLaunched { .. }
                | dbos::Error::SystemDatabase(dbos::sysdb::Error::Backend(_)),
            )) => Err(StartError::Unavailable),
            Ok(Err(other)) => Err(StartError::Refused(other.to_string())),
        }
    }

    /// Waits for the engine's supervisor to end, which it does only when it is drained or by a bug.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Stops: no step begins any more, running ones get `grace` to finish, what is left of their runs stays
    /// pending for whoever is next, and the slot is given back. Whether every step came to its end.
    pub async fn drain(&self, grace: Duration) -> bool {
        let gate = &self.0.shared.shop.gate;
        gate.close();
        let quiet = gate.quiet(grace).await;
        self.0.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, self.ended())
            .await
            .is_err()
        {
            tracing::warn!("the workflow engine did not stop in time");
        }
        // Runs that ended meanwhile: their status is one statement away, and the next sweep may be far.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.0.shared.settler.flush()).await;
        self.0.shared.system.close().await;
        quiet
    }
}
