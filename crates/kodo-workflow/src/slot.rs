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

use crate::holder;

/// First key of every advisory lock here: "kodo" in ASCII.
pub(crate) const LOCK_CLASS: i32 = 0x6b6f_646f;

/// How many workers one system database takes.
const SLOTS: i32 = 64;

/// How often the holder makes sure that it still holds its lock.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A heartbeat that is not answered in this time counts as failed.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// A holder that could not confirm its lock for this long stops working.
const STOP_AFTER: Duration = Duration::from_secs(4);

/// A slot that was seen free for this long, with no proof that its holder is dead, belongs to nobody. Longer
/// than [`STOP_AFTER`]: the holder has stopped by then, wherever it is.
pub(crate) const TAKEOVER_AFTER: Duration = Duration::from_secs(6);

/// The executor id of a slot.
pub(crate) fn executor_id(slot: i32) -> String {
    format!("kodo-{slot}")
}

/// The slot of an executor id, where it is one of ours.
pub(crate) fn slot_of(executor_id: &str) -> Option<i32> {
    executor_id.strip_prefix("kodo-")?.parse().ok()
}

/// Takes a slot's lock, or says that another session has it.
pub(crate) async fn try_lock(
    connection: &mut PgConnection,
    slot: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
        .bind(LOCK_CLASS)
        .bind(slot)
        .fetch_one(connection)
        .await
}

/// Gives a slot's lock back.
pub(crate) async fn unlock(connection: &mut PgConnection, slot: i32) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1, $2)")
        .bind(LOCK_CLASS)
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
#[derive(Debug)]
pub(crate) struct Lease {
    slot: i32,
    system: DatabaseConfig,
    connection: PgConnection,
    confirmed: Instant,
}

impl Lease {
    /// Takes the lowest slot that is free and whose last holder is certainly not alive. A free slot of a
    /// holder that may live is left to the sweep, which waits before it takes the work over.
    pub(crate) async fn take(system: &DatabaseConfig, store: &Store) -> Result<Self, TakeError> {
        let mut connection = connect(system).await?;
        let me = holder::me();
        for slot in 0..SLOTS {
            if !try_lock(&mut connection, slot).await? {
                continue;
            }
            let last = store.slot_holder(slot).await?;
            if last.is_none_or(|last| last == me || holder::is_dead(&last)) {
                store.set_slot_holder(slot, Some(&me)).await?;
                return Ok(Self {
                    slot,
                    system: system.clone(),
                    connection,
                    confirmed: Instant::now(),
                });
            }
            unlock(&mut connection, slot).await?;
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
            tokio::time::sleep(HEARTBEAT).await;
            if self.confirm().await {
                continue;
            }
            tracing::warn!(
                slot = self.slot,
                "lost the slot's connection; taking the lock again"
            );
            if let Err(lost) = self.retake().await {
                return lost;
            }
            tracing::info!(slot = self.slot, "holds the slot again");
        }
    }

    /// Gives the slot back, saying so: whoever comes next need not wait.
    pub(crate) async fn release(mut self, store: &Store) {
        // Best effort: the lock goes with the connection, and without the note the next holder only has to
        // look whether this process is alive.
        let _ = tokio::time::timeout(HEARTBEAT_TIMEOUT, async {
            let _ = store.set_slot_holder(self.slot, None).await;
            let _ = unlock(&mut self.connection, self.slot).await;
            let _ = self.connection.close().await;
        })
        .await;
    }

    async fn confirm(&mut self) -> bool {
        let asked = Instant::now();
        let answer = tokio::time::timeout(
            HEARTBEAT_TIMEOUT,
            sqlx::query("SELECT 1").execute(&mut self.connection),
        )
        .await;
        let alive = matches!(answer, Ok(Ok(_)));
        if alive {
            // The server held the lock when it answered, so at the earliest when it was asked.
            self.confirmed = asked;
        }
        alive
    }

    async fn retake(&mut self) -> Result<(), Lost> {
        loop {
            let left = STOP_AFTER
                .checked_sub(self.confirmed.elapsed())
                .ok_or(Lost::Unconfirmed)?;
            let asked = Instant::now();
            let attempt = tokio::time::timeout(left, async {
                let mut connection = connect(&self.system).await?;
                let locked = try_lock(&mut connection, self.slot).await?;
                Ok::<_, sqlx::Error>((connection, locked))
            })
            .await;
            match attempt {
                Ok(Ok((connection, true))) => {
                    self.connection = connection;
                    self.confirmed = asked;
                    return Ok(());
                }
                Ok(Ok((_, false))) if self.confirmed.elapsed() > HEARTBEAT_TIMEOUT => {
                    return Err(Lost::Taken);
                }
                // Right after a cut the server may not have noticed yet that our old session is gone.
                Ok(Ok((_, false)) | Err(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(_) => return Err(Lost::Unconfirmed),
            }
        }
    }
}

async fn connect(system: &DatabaseConfig) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(&system.connect_options("kodo-slot")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_stops_before_anybody_takes_over() {
        assert!(STOP_AFTER + HEARTBEAT < TAKEOVER_AFTER);
        assert!(HEARTBEAT + HEARTBEAT_TIMEOUT < STOP_AFTER);
    }

    #[test]
    fn only_our_executor_ids_name_slots() {
        assert_eq!(slot_of(&executor_id(7)), Some(7));
        assert_eq!(slot_of("local"), None);
        assert_eq!(slot_of("kodo-"), None);
        assert_eq!(slot_of("kodo-x"), None);
    }
}
