//! Why the engine does not run yet, for those who ask: `/readyz`, the log.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kodo_store::{DatabaseConfig, Store, StoreError, waits_for};

use crate::sysdb::locks::launch_holder;

/// Pause between two looks at who keeps the start waiting.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The reason, while there is one. A handle: cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standstill {
    reason: Arc<Mutex<Option<String>>>,
    /// Whether this process has the lock of a launch.
    launching: Arc<AtomicBool>,
}

/// This process has the lock of a launch, until it is dropped.
pub(crate) struct Launching(Arc<AtomicBool>);

impl Drop for Launching {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Standstill {
    /// The reason, in words.
    pub(crate) fn reason(&self) -> Option<String> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone()
    }

    /// Says that this process has the lock of a launch, so that nobody else does.
    pub(crate) fn launching(&self) -> Launching {
        self.launching.store(true, Ordering::Relaxed);
        Launching(Arc::clone(&self.launching))
    }

    /// Sets the reason. Returns whether it is another one than before.
    pub(crate) fn set(&self, reason: Option<String>) -> bool {
        let mut now = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *now != reason;
        *now = reason;
        changed
    }

    /// Looks who keeps sessions of ours waiting, in both databases, and says so for as long as it is polled.
    pub(crate) async fn watch(
        &self,
        store: &Store,
        system: &DatabaseConfig,
        class: i32,
    ) -> Infallible {
        let mut told = Vec::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // That a server does not answer is for whoever waits for it to say.
            let class = (!self.launching.load(Ordering::Relaxed)).then_some(class);
            let Ok(Some((pids, reason))) = look(store, system, class).await else {
                continue;
            };
            if pids != told {
                tracing::warn!(reason, "the start of the workflow engine waits");
            }
            told = pids;
            self.set(Some(reason));
        }
    }
}

/// Who keeps us waiting: process ids on the server, and a sentence. With a class, also who has the lock of a launch.
async fn look(
    store: &Store,
    system: &DatabaseConfig,
    class: Option<i32>,
) -> Result<Option<(Vec<i32>, String)>, StoreError> {
    let mut blockers = store.blockers().await?;
    if blockers.is_empty() {
        blockers = system.blockers().await?;
    }
    if let Some(reason) = waits_for(&blockers) {
        let pids = blockers.iter().map(|blocker| blocker.pid).collect();
        return Ok(Some((pids, reason)));
    }
    let Some(class) = class else {
        return Ok(None);
    };
    let mut connection = system.connect("kodo-watch").await?;
    let holder = launch_holder(&mut connection, class).await?;
    Ok(holder.map(|lock| {
        let reason = format!("waits for the launch of another worker: {lock} has the lock");
        (vec![lock.pid], reason)
    }))
}
