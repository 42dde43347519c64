//! The lease of a worker slot, which makes an executor id belong to one live process.
//!
//! A slot is a session advisory lock in the system database, and the executor id is the slot's name. The lock is
//! released when the process dies, so a restart finds its slot free, takes it again and recovers at once. Two live
//! processes never share an id, because sharing one would run work twice.
//!
//! A free lock does not prove that the process is dead: a restart of the server releases every lock. Hence
//! [`STOP_AFTER`] and [`TAKEOVER_AFTER`].

use std::time::{Duration, Instant};

use kodo_store::{DatabaseConfig, Store, StoreError};
use sqlx::{Connection, PgConnection};

use crate::holder;
use crate::sysdb::locks::{holds_slot, try_lock_slot, unlock_slot};
use crate::sysdb::names::executor_id;
use crate::workers::error::WorkerError;

/// Most workers of one product database.
const SLOTS: i32 = 64;

/// How often the holder confirms that it still holds its lock.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A holder that could not confirm its lock for this long stops working. Longer than a server stalls in a checkpoint,
/// because a slow answer is no reason to throw work away.
const STOP_AFTER: Duration = Duration::from_secs(8);

/// A slot that was seen free for this long counts as abandoned, also without proof that its holder is dead. Longer
/// than [`STOP_AFTER`] by more than a heartbeat, so that the holder has stopped by then, on whatever machine it runs.
pub(crate) const TAKEOVER_AFTER: Duration = Duration::from_secs(10);

/// Bound on releasing a slot. If it fails, the next holder only waits longer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the session that holds the lock. Without them a server keeps the session of a host that is gone, and
/// with it the lock, for the two hours that TCP keepalive takes by default.
const SESSION: &str = "SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; \
     SET tcp_user_timeout = 5000";

/// Why a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Another process holds the slot.
    Taken,
    /// The lock could not be confirmed in time.
    Unconfirmed,
}

/// A held slot.
pub(crate) struct Lease {
    slot: i32,
    class: i32,
    system: DatabaseConfig,
    store: Store,
    /// `None` while a lost connection is being replaced.
    connection: Option<PgConnection>,
    confirmed: Instant,
}

impl Lease {
    /// Takes the lowest slot that is free and whose last holder is certainly not alive. A free slot whose holder may
    /// live is left to the takeover, which waits before it takes the work over.
    pub(crate) async fn take(
        system: &DatabaseConfig,
        store: &Store,
        class: i32,
    ) -> Result<Self, WorkerError> {
        let mut connection = connect(system).await?;
        for slot in 0..SLOTS {
            let asked = Instant::now();
            if !try_lock_slot(&mut connection, class, slot).await? {
                continue;
            }
            let last = store.slot_holder(slot).await?;
            if last.is_none_or(|last| holder::is_me(&last) || holder::is_dead(&last)) {
                store.set_slot_holder(slot, Some(&holder::me())).await?;
                return Ok(Self {
                    slot,
                    class,
                    system: system.clone(),
                    store: store.clone(),
                    connection: Some(connection),
                    confirmed: asked,
                });
            }
            unlock_slot(&mut connection, class, slot).await?;
        }
        Err(WorkerError::NoFreeSlot)
    }

    /// The slot's number.
    pub(crate) fn slot(&self) -> i32 {
        self.slot
    }

    /// Keeps the slot; returns when it is lost.
    pub(crate) async fn keep(&mut self) -> Lost {
        loop {
            match self.confirm().await {
                Ok(true) => tokio::time::sleep(HEARTBEAT).await,
                Ok(false) => {
                    tracing::warn!(
                        slot = self.slot,
                        "lost the slot's connection; taking the lock again"
                    );
                    if let Err(lost) = self.retake().await {
                        return lost;
                    }
                    tracing::info!(slot = self.slot, "holds the slot again");
                }
                Err(lost) => return lost,
            }
        }
    }

    /// Releases the slot and records that, so that the next holder need not wait.
    pub(crate) async fn release(mut self) {
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, async {
            // Nothing executes here any more. If this fails, whoever takes the slot over does it.
            let _ = self.store.end_claims_of(&executor_id(self.slot)).await;
            let _ = self.store.set_slot_holder(self.slot, None).await;
            if let Some(mut connection) = self.connection.take() {
                let _ = unlock_slot(&mut connection, self.class, self.slot).await;
                let _ = connection.close().await;
            }
        })
        .await;
    }

    /// How much longer this holder may work without confirming its lock.
    fn left(&self) -> Result<Duration, Lost> {
        STOP_AFTER
            .checked_sub(self.confirmed.elapsed())
            .ok_or(Lost::Unconfirmed)
    }

    /// Whether the session exists and holds the lock. Waits for a slow answer as long as the lease allows: the session
    /// may be alive, and a new one could then not take the lock.
    async fn confirm(&mut self) -> Result<bool, Lost> {
        let left = self.left()?;
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let asked = Instant::now();
        let held = holds_slot(connection, self.class, self.slot);
        match tokio::time::timeout(left, held).await {
            Ok(Ok(true)) => {
                // The server held the lock when it answered, so at the earliest when it was asked.
                self.confirmed = asked;
                Ok(true)
            }
            Ok(Ok(false) | Err(_)) => Ok(false),
            Err(_) => Err(Lost::Unconfirmed),
        }
    }

    async fn retake(&mut self) -> Result<(), Lost> {
        // Closed first: if the old session is alive, it keeps the lock from the new one.
        self.connection = None;
        loop {
            let left = self.left()?;
            let asked = Instant::now();
            let attempt = tokio::time::timeout(left, async {
                let mut connection = connect(&self.system).await?;
                let locked = try_lock_slot(&mut connection, self.class, self.slot).await?;
                // A worker that took the work over meanwhile has recorded that.
                let ours = match self.store.slot_holder(self.slot).await? {
                    Some(last) => last == holder::me(),
                    None => false,
                };
                Ok::<_, StoreError>((connection, locked, ours))
            })
            .await;
            match attempt {
                Ok(Ok((_, _, false))) => return Err(Lost::Taken),
                Ok(Ok((connection, true, true))) => {
                    self.connection = Some(connection);
                    self.confirmed = asked;
                    return Ok(());
                }
                // The server may not have noticed yet that our old session is gone.
                Ok(Ok((_, false, true)) | Err(_)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(_) => return Err(Lost::Unconfirmed),
            }
        }
    }
}

async fn connect(system: &DatabaseConfig) -> Result<PgConnection, StoreError> {
    let mut connection = system.connect("kodo-slot").await?;
    sqlx::raw_sql(SESSION).execute(&mut connection).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_stops_before_another_worker_takes_over() {
        assert!(STOP_AFTER + HEARTBEAT < TAKEOVER_AFTER);
        assert!(HEARTBEAT * 2 < STOP_AFTER);
    }
}
