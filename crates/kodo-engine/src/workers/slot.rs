//! Worker slots: what makes an executor id belong to one live process.
//!
//! A slot is a session advisory lock in the system database, and the executor id is the slot's name. The lock
//! dies with the process, so a restart finds its slot free, takes it again and recovers at once. Two live
//! processes never share an id, because sharing one runs work twice.
//!
//! A free lock does not prove a dead process: a server restart frees every lock. Hence the two times below.

use std::time::{Duration, Instant};

use kodo_store::{DatabaseConfig, Store, StoreError};
use sqlx::{Connection, PgConnection};

use crate::workers::holder;

/// How many workers one system database takes.
const SLOTS: i32 = 64;

/// How often the holder makes sure that it still holds its lock.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A holder that could not confirm its lock for this long stops working. Long enough for a server that stalls
/// in a checkpoint: being slow to answer is no reason to throw work away.
const STOP_AFTER: Duration = Duration::from_secs(8);

/// A slot that was seen free for this long, with no proof that its holder is dead, belongs to nobody. Longer
/// than [`STOP_AFTER`] by more than a heartbeat: the holder has stopped by then, wherever it is.
pub(crate) const TAKEOVER_AFTER: Duration = Duration::from_secs(10);

/// How long giving a slot back may take; without it the next holder only waits longer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the session that holds the lock. Without them a server keeps the session of a host that is
/// gone, and the lock with it, for the two hours that TCP keepalive takes by default.
const SESSION: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "2"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "5000"),
];

/// The executor id of a slot.
pub(crate) fn executor_id(slot: i32) -> String {
    format!("kodo-{slot}")
}

/// The slot of an executor id, where it is one of ours.
pub(crate) fn slot_of(executor_id: &str) -> Option<i32> {
    executor_id.strip_prefix("kodo-")?.parse().ok()
}

/// The first key of every advisory lock of a product database: two of them may share a system database.
pub(crate) fn lock_class(instance: &str) -> i32 {
    // Eight hexadecimal digits are exactly 32 bits; anything else is no instance that a migration made.
    let bits = u32::from_str_radix(instance, 16).unwrap_or_default();
    i32::from_ne_bytes(bits.to_ne_bytes())
}

/// Takes a slot's lock, or says that another session has it.
pub(crate) async fn try_lock(
    connection: &mut PgConnection,
    class: i32,
    slot: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(class)
        .bind(slot)
        .fetch_one(connection)
        .await
}

/// Gives a slot's lock back.
pub(crate) async fn unlock(
    connection: &mut PgConnection,
    class: i32,
    slot: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1, $2)")
        .bind(class)
        .bind(slot)
        .execute(connection)
        .await?;
    Ok(())
}

/// Why no slot could be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("all {SLOTS} worker slots of the system database are taken")]
    Full,
}

impl From<sqlx::Error> for TakeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

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
    /// Takes the lowest slot that is free and whose last holder is certainly not alive. A free slot of a
    /// holder that may live is left to the sweep, which waits before it takes the work over.
    pub(crate) async fn take(
        system: &DatabaseConfig,
        store: &Store,
        class: i32,
    ) -> Result<Self, TakeError> {
        let mut connection = connect(system).await?;
        for slot in 0..SLOTS {
            let asked = Instant::now();
            if !try_lock(&mut connection, class, slot).await? {
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
            unlock(&mut connection, class, slot).await?;
        }
        Err(TakeError::Full)
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

    /// Gives the slot back, saying so: whoever comes next need not wait.
    pub(crate) async fn release(mut self) {
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, async {
            let _ = self.store.set_slot_holder(self.slot, None).await;
            if let Some(mut connection) = self.connection.take() {
                let _ = unlock(&mut connection, self.class, self.slot).await;
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

    /// Whether the session is there and holds the lock. A slow answer is waited for as long as the lease
    /// allows: the session may be fine, and giving it up would lose the lock to ourselves.
    async fn confirm(&mut self) -> Result<bool, Lost> {
        let left = self.left()?;
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let asked = Instant::now();
        // Asked of the lock table and not just of the connection: behind a proxy that pools sessions, a
        // connection that answers proves nothing.
        let held = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_locks
                            WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted
                              AND classid = $1::oid AND objid = $2::oid AND objsubid = 2)",
        )
        .bind(i64::from(u32::from_ne_bytes(self.class.to_ne_bytes())))
        .bind(i64::from(self.slot))
        .fetch_one(connection);
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
        // First of all: a session that is alive after all would hold the lock against us.
        self.connection = None;
        loop {
            let left = self.left()?;
            let asked = Instant::now();
            let attempt = tokio::time::timeout(left, async {
                let mut connection = connect(&self.system).await?;
                let locked = try_lock(&mut connection, self.class, self.slot).await?;
                // Whoever took the work over meanwhile has said so.
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
    kodo_store::connect(system.connect_options("kodo-slot").options(SESSION)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_stops_before_anybody_takes_over() {
        assert!(STOP_AFTER + HEARTBEAT < TAKEOVER_AFTER);
        assert!(HEARTBEAT * 2 < STOP_AFTER);
    }

    #[test]
    fn every_instance_has_a_lock_class_of_its_own() {
        assert_eq!(lock_class("0000002a"), 42);
        assert_eq!(lock_class("ffffffff"), -1);
        assert_ne!(lock_class("80000000"), lock_class("00000000"));
    }

    #[test]
    fn only_our_executor_ids_name_slots() {
        assert_eq!(slot_of(&executor_id(7)), Some(7));
        assert_eq!(slot_of("local"), None);
        assert_eq!(slot_of("kodo-"), None);
        assert_eq!(slot_of("kodo-x"), None);
    }
}
