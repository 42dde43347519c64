//! The engine as the rest of the process sees it: a handle that exists before the engine is launched.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kodo_contract::RunId;
use kodo_planner::Planner;
use kodo_sandbox::Sandbox;
use kodo_store::content::ArtifactStore;
use kodo_store::{DatabaseConfig, Part, Store, StoreError};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::EngineConfig;
use crate::dispatch::dispatcher::{Dispatcher, Found};
use crate::drain::Drain;
use crate::launched::Launched;
use crate::run::context::RunContext;
use crate::run::planner_away::PlannerAway;
use crate::sysdb::schema::EngineSchema;
use crate::sysdb::system_db::SystemDb;
use crate::workers::shared::Shared;
use crate::workers::stall::{Awaited, Stall};
use crate::workers::standstill::Standstill;
use crate::workers::supervisor::supervise;

/// Bound on stopping the engine after the last step: its own shutdown and releasing the slot.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// The engine of this process. Cheap to clone.
///
/// A new handle belongs to no engine yet: it reports that none is launched, refuses work and can be drained.
/// [`EngineHandle::start`] starts the engine behind it; every clone sees each launch and its end.
#[derive(Clone, Default)]
pub struct EngineHandle(Arc<Inner>);

#[derive(Default)]
struct Inner {
    drain: Arc<Drain>,
    launched: watch::Sender<Option<Launched>>,
    /// Where the system database is, if this handle was made for one.
    system: Option<DatabaseConfig>,
    /// Set once, by [`EngineHandle::start`].
    started: OnceLock<Arc<Shared>>,
    stop: CancellationToken,
    /// Cancelled when the supervisor has returned.
    ended: CancellationToken,
}

impl EngineHandle {
    /// A handle that can tell how the system database is before the engine is started.
    #[must_use]
    pub fn of(system: &DatabaseConfig) -> Self {
        Self(Arc::new(Inner {
            system: Some(system.clone()),
            ..Inner::default()
        }))
    }

    /// Starts the engine's supervisor in the background and returns at once. The store must be migrated.
    ///
    /// Must be called on a Tokio runtime. Has an effect only the first time.
    pub fn start(
        &self,
        config: EngineConfig,
        store: Store,
        artifacts: Arc<dyn ArtifactStore>,
        planner: Arc<dyn Planner>,
        sandbox: Arc<dyn Sandbox>,
    ) {
        let system_db = Arc::new(SystemDb::new(&config.system, &config.instance));
        let shared = Arc::new(Shared {
            ctx: RunContext {
                store,
                artifacts,
                artifact_patience: config.artifact_patience,
                bounds: config.workspace,
                spool: config.spool.clone(),
                planner,
                planner_patience: config.planner_patience,
                planner_away: PlannerAway::default(),
                sandbox,
                secrets: config.secrets.clone(),
                most: config.most,
                linger: config.checkpoint_linger,
                slots: Semaphore::new(config.max_concurrent_tool_calls),
                seed: config.seed,
                drain: Arc::clone(&self.0.drain),
            },
            system_db,
            dispatcher: Arc::new(Dispatcher::new(config.max_concurrent_runs)),
            standstill: Standstill::default(),
            awaited: Arc::new(Awaited::default()),
            schema: AtomicI64::new(0),
        });
        if self.0.started.set(Arc::clone(&shared)).is_err() {
            return;
        }
        let supervised = supervise(shared, config, self.0.launched.clone(), self.0.stop.clone());
        // Dropped when the supervisor returns, and also when it panics.
        let ended = self.0.ended.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = ended;
            supervised.await;
        });
    }

    /// Replaces what requests reach. The supervisor does so at each launch and at its end; tests of what uses a handle
    /// give it a launch of their own.
    pub fn set_launched(&self, launched: Option<Launched>) {
        self.0.launched.send_replace(launched);
    }

    /// Whether workflows run in this process right now.
    pub fn is_launched(&self) -> bool {
        self.0.launched.borrow().is_some()
    }

    /// Whether the process is shutting down and takes no more work.
    pub fn is_draining(&self) -> bool {
        self.0.drain.has_begun()
    }

    /// Waits until workflows run in this process, and returns the executor id that they run under.
    pub async fn launched(&self) -> String {
        let mut launched = self.0.launched.subscribe();
        match launched.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(launched)) => launched.executor_id().to_owned(),
            // This handle holds the sender, so waiting does not fail.
            _ => std::future::pending().await,
        }
    }

    /// Why workflows do not run in this process, or why none begins although they do, in words, if that is known.
    pub fn standstill(&self) -> Option<String> {
        let shared = self.0.started.get().filter(|_| !self.is_draining())?;
        if !self.is_launched() {
            return shared.standstill.reason();
        }
        match shared.awaited.stall()? {
            Stall::Worker(reason) => Some(reason),
            Stall::Sessions(_) => None,
        }
    }

    /// Whether the launched engine has waited too long for a database, so that nothing begins.
    pub fn is_stalled(&self) -> bool {
        self.is_launched() && self.standstill().is_some()
    }

    /// Whether the system database answers, and if it does, why nothing can be written there, if so. The caller bounds
    /// the wait.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also before the engine is started if the handle was made for no system database.
    pub async fn system_database(&self) -> Result<Option<&'static str>, StoreError> {
        match (self.0.started.get(), &self.0.system) {
            (Some(shared), _) => shared.system_db.read_only().await,
            (None, Some(system)) => {
                let mut connection = system.connect("kodo-system").await?;
                kodo_store::read_only(&mut connection).await
            }
            (None, None) => Err(StoreError::Unavailable(sqlx::Error::PoolClosed)),
        }
    }

    /// Why the system database is of no use, in words, if it answers and says so.
    pub async fn why_system_database_is_unavailable(&self) -> Option<String> {
        let system = self.0.system.as_ref()?;
        system.why_unavailable(Part::System).await
    }

    /// What an operator should know although workflows run: of the engine's schema, of steps that somebody holds up, of runs
    /// that wait for a planner.
    pub fn warnings(&self) -> Vec<String> {
        let Some(shared) = self.0.started.get() else {
            return Vec::new();
        };
        let schema = EngineSchema(shared.schema.load(Ordering::Relaxed)).warning();
        let held_up = match shared.awaited.stall() {
            Some(Stall::Sessions(reason)) => Some(reason),
            _ => None,
        };
        let away = shared.ctx.planner_away.warning();
        schema.into_iter().chain(held_up).chain(away).collect()
    }

    /// Says that a run's row is committed and can start. Never blocks. It is a hint: if it is lost, the sweep finds
    /// the run.
    pub fn accepted(&self, run_id: &RunId) {
        if let Some(shared) = self.0.started.get()
            && self.is_launched()
            && !self.is_draining()
        {
            shared
                .dispatcher
                .offer(run_id.workflow_id(), Found::Nothing);
        }
    }

    /// The launched engine, unless the process is shutting down.
    pub(crate) fn for_requests(&self) -> Option<Launched> {
        let launched = self.0.launched.borrow().clone();
        launched.filter(|_| !self.is_draining())
    }

    /// Waits for the engine's supervisor to end, which happens only after a drain or by a bug.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Takes no more work and lets no further step begin.
    pub fn begin_drain(&self) {
        self.0.drain.begin();
    }

    /// Stops the engine: no further step begins, running ones get `grace` to finish, the rest of their runs stays
    /// pending for the next worker, and the slot is released. Returns whether every step finished.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.begin_drain();
        let Some(shared) = self.0.started.get() else {
            return true;
        };
        let finished = self.0.drain.steps_finished(grace).await;
        self.0.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, self.ended())
            .await
            .is_err()
        {
            tracing::warn!("the workflow engine did not stop in time");
        }
        shared.system_db.close().await;
        finished
    }
}
