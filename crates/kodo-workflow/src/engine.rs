//! The engine as the rest of the process sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dbos::StartOptions;
use kodo_contract::{RunId, WorkflowId};
use kodo_planner::Planner;
use kodo_sandbox::Sandbox;
use kodo_store::{DatabaseConfig, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::crash_demo::DemoInput;
use crate::gate::Gate;
use crate::intent_run::Workshop;
use crate::settle::{self, Settler};
use crate::starter::Starter;
use crate::supervisor::{Launched, supervise};
use crate::system::System;

/// How long a client waits for the engine to write down a crash demo, under the contract's five seconds.
const START_TIMEOUT: Duration = Duration::from_millis(3500);

/// What the engine needs to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The system database.
    pub system: DatabaseConfig,
    /// Connections of the engine's own pool.
    pub engine_connections: u32,
    /// How many runs this process works on at once. Further ones wait as rows.
    pub max_concurrent_runs: usize,
    /// Durable sleep of the crash demo (`WF_SLEEP_MS`).
    pub crash_demo_sleep: Duration,
    /// Part of the planner's fixture key and of every deterministic choice (`TEST_SEED`).
    pub seed: u64,
}

/// What workflow bodies, sweeps and the starter share. It never holds the engine: the engine holds it.
pub(crate) struct Shared {
    pub(crate) shop: Workshop,
    pub(crate) system: Arc<System>,
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
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the engine's supervisor in the background and returns at once. The store must be migrated.
    ///
    /// Must be called on a Tokio runtime.
    pub fn start(
        config: EngineConfig,
        store: Store,
        planner: Arc<dyn Planner>,
        sandbox: Arc<dyn Sandbox>,
    ) -> Self {
        let system = Arc::new(System::new(&config.system));
        let (settler, reports) = Settler::new();
        let shared = Arc::new(Shared {
            shop: Workshop {
                store: store.clone(),
                planner,
                sandbox,
                seed: config.seed,
                gate: Gate::default(),
            },
            system: Arc::clone(&system),
            starter: Arc::new(Starter::new(config.max_concurrent_runs)),
            settler: settler.clone(),
        });
        let (sender, launched) = watch::channel(None);
        let stop = CancellationToken::new();
        let sleep = config.crash_demo_sleep;
        let tasks = vec![
            tokio::spawn(supervise(Arc::clone(&shared), config, sender, stop.clone())),
            tokio::spawn(settle::work(settler, reports, system, store)),
        ];
        Self(Arc::new(Inner {
            shared,
            sleep,
            launched,
            stop,
            tasks: Mutex::new(tasks),
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

    /// Stops: no step begins any more, running ones get `grace` to finish, what is left of their runs stays
    /// pending for whoever is next, and the slot is given back. Whether every step came to its end.
    pub async fn drain(&self, grace: Duration) -> bool {
        let gate = &self.0.shared.shop.gate;
        gate.close();
        let quiet = gate.quiet(grace).await;
        self.0.stop.cancel();
        let tasks =
            std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = tasks.into_iter();
        if let Some(supervisor) = tasks.next() {
            // A panic in there has been logged by the runtime; there is nothing more to stop.
            let _ = supervisor.await;
        }
        for rest in tasks {
            rest.abort();
        }
        self.0.shared.system.close().await;
        quiet
    }
}
