//! The advisory locks of a product database in its system database. The first key is the instance's lock class; the
//! second is the slot's number, or one of the negative ones here.

use std::fmt;
use std::time::Duration;

use sqlx::{PgConnection, PgExecutor};

/// Second key of the lock under which an engine is launched.
const LAUNCH: i32 = -2;

/// Second key of the lock that a sweep holds.
const SWEEP: i32 = -1;

/// Takes a slot's lock for the session. Returns false if another session holds it.
pub(crate) async fn try_lock_slot(
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

/// Releases a slot's lock.
pub(crate) async fn unlock_slot(
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

/// Whether this session holds a slot's lock. Asks the lock table and not only the connection: behind a proxy that pools
/// sessions, a connection that answers proves nothing.
pub(crate) async fn holds_slot(
    connection: &mut PgConnection,
    class: i32,
    slot: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_locks
                        WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted
                          AND classid = $1::oid AND objid = $2::oid AND objsubid = 2)",
    )
    .bind(key(class))
    .bind(key(slot))
    .fetch_one(connection)
    .await
}

/// The executor ids of the workers that live: those whose slot's lock some session holds.
pub(crate) async fn live_workers(
    database: impl PgExecutor<'_>,
    instance: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let query = include_str!("sql/workers.sql").replace(":'instance'", "$1");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .bind(instance)
        .fetch_all(database)
        .await
}

/// Pause between two tries to take the lock of a launch.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Waits for the lock under which an engine is launched. It is released with the session.
///
/// Tries again and again instead of waiting in the server: a statement that waits there holds a snapshot, and the engine
/// of whoever has the lock builds indexes concurrently, which waits for every older snapshot. Neither would end.
pub(crate) async fn lock_launch(
    connection: &mut PgConnection,
    class: i32,
) -> Result<(), sqlx::Error> {
    loop {
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(class)
            .bind(LAUNCH)
            .fetch_one(&mut *connection)
            .await?;
        if locked {
            return Ok(());
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// The session that has the lock under which a worker is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchLock {
    /// Its process id on the server.
    pub pid: i32,
    /// Its application's name.
    pub application: String,
    /// For how long it has been connected, in seconds.
    pub connected: i64,
}

impl fmt::Display for LaunchLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            application,
            connected,
        } = self;
        write!(
            f,
            "session {pid} of the server ({application}, connected for {connected} s)"
        )
    }
}

/// The session that has the lock under which an engine is launched.
pub(crate) async fn launch_holder(
    connection: &mut PgConnection,
    class: i32,
) -> Result<Option<LaunchLock>, sqlx::Error> {
    let holder: Option<(i32, String, i64)> = sqlx::query_as(
        "SELECT a.pid, coalesce(a.application_name, ''),
                greatest(0, extract(epoch FROM clock_timestamp() - a.backend_start))::bigint
         FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1::oid AND l.objid = $2::oid
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .bind(key(class))
    .bind(key(LAUNCH))
    .fetch_optional(connection)
    .await?;
    Ok(holder.map(|(pid, application, connected)| LaunchLock {
        pid,
        application,
        connected,
    }))
}

/// A key of an advisory lock as `pg_locks` shows it.
fn key(key: i32) -> i64 {
    i64::from(u32::from_ne_bytes(key.to_ne_bytes()))
}

/// Takes the lock of the sweep for the transaction. Returns false if another process sweeps.
pub(crate) async fn try_lock_sweep(
    transaction: &mut PgConnection,
    class: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
        .bind(class)
        .bind(SWEEP)
        .fetch_one(transaction)
        .await
}
