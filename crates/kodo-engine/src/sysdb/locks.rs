//! The advisory locks of a product database in its system database. The first key is the instance's lock class; the
//! second is the slot's number, or one of the negative ones here.

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
    .bind(i64::from(u32::from_ne_bytes(class.to_ne_bytes())))
    .bind(i64::from(slot))
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

/// Waits for the lock under which an engine is launched. It is released with the session.
pub(crate) async fn lock_launch(
    connection: &mut PgConnection,
    class: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_lock($1, $2)")
        .bind(class)
        .bind(LAUNCH)
        .execute(connection)
        .await?;
    Ok(())
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
