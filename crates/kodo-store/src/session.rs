//! The settings of our sessions. A role or a database may have others (`ALTER ROLE … SET`), and what a statement returns
//! as text, or what a name means, must not depend on them.
//!
//! They are set by a statement once the connection is there and not in its first message: a pooler refuses settings there
//! that it does not know.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use crate::StoreError;

/// Every setting that changes the text of a value, the meaning of a name, or what a transaction sees. The driver itself
/// asks for `DateStyle`, `TimeZone` and `client_encoding`, in its first message.
///
/// The last one: a statement that waits (for a lock, for the snapshots before an index) ends within a second when its
/// client is gone. Otherwise a process that was killed in its start leaves a statement that holds up the next start. A server
/// on Windows cannot do that, and refuses the setting.
macro_rules! settings {
    () => {
        "SET search_path = pg_catalog; SET quote_all_identifiers = off; SET IntervalStyle = postgres; \
         SET DateStyle = ISO; SET TimeZone = UTC; SET standard_conforming_strings = on; SET bytea_output = hex; \
         SET xmloption = content; SET extra_float_digits = 1; SET array_nulls = on; SET transform_null_equals = off; \
         SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; \
         SELECT CASE WHEN current_setting('client_connection_check_interval', true) = '0' \
                      AND version() !~* 'windows|mingw|visual' \
                THEN set_config('client_connection_check_interval', '1s', false) END"
    };
}

/// Settings of every session.
const SETTINGS: &str = settings!();

/// Settings of sessions that run the same few statements over and over, each of them by an index.
///
/// A prepared statement keeps its plan, and a plan made while a table was young is a sequential scan, until the
/// first ANALYZE: 14 ms instead of 0.1 ms on 50,000 rows. Compiling such statements never pays.
const BY_INDEX: &str = concat!(settings!(), "; SET enable_seqscan = off; SET jit = off");

/// Settings of a session that writes groups of rows. Its statements take arrays, whose length is no reason to plan anew. A row
/// that somebody has locked is taken out of its group, so that the others need not wait.
const WRITER: &str = concat!(
    settings!(),
    "; SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan; SET lock_timeout = '300ms'"
);

/// Timeout of connecting: a server may accept the connection and then not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was used this recently is trusted to be alive.
const PING_AFTER_IDLE: Duration = Duration::from_millis(250);

/// One connection, in bounded time, with our settings.
///
/// # Errors
/// [`StoreError::Unavailable`] if the server does not answer in time.
pub async fn connect(options: PgConnectOptions) -> Result<PgConnection, StoreError> {
    connect_with(options, SETTINGS).await
}

/// A session for what others keep locked. Its wait ends before the writer gives up the connection, so that no session of it
/// stays behind.
const PATIENT_WRITER: &str = concat!(settings!(), "; SET lock_timeout = '18s'");

/// The connection of a journal's writer.
pub(crate) async fn writer(options: PgConnectOptions) -> Result<PgConnection, StoreError> {
    connect_with(options, WRITER).await
}

/// The connection on which a journal waits for a lock.
pub(crate) async fn patient_writer(options: PgConnectOptions) -> Result<PgConnection, StoreError> {
    connect_with(options, PATIENT_WRITER).await
}

async fn connect_with(
    options: PgConnectOptions,
    settings: &'static str,
) -> Result<PgConnection, StoreError> {
    let connecting = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        sqlx::raw_sql(settings).execute(&mut connection).await?;
        Ok(connection)
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| {
            let silent = format!("no answer within {CONNECT_TIMEOUT:?}");
            sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, silent))
        })?
        .map_err(|error: sqlx::Error| error.into())
}

/// A pool whose sessions run the same few statements over and over, each of them by an index. It connects lazily: the
/// first statement finds out whether the server is there. `acquire_timeout` bounds the wait for a connection.
pub fn pool(options: PgConnectOptions, most: u32, acquire_timeout: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(acquire_timeout)
        // A ping before each use would add a round trip to every statement. One that has been idle for a
        // while may have lost its server meanwhile, and the caller should not be the one to find out.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > PING_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(BY_INDEX).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}
