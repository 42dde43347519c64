//! The connection pool and how to reach the server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::{Mutex, Semaphore};

use crate::journal::Journal;
use crate::requirements::read_only;
use crate::rows::group::Product;
use crate::session::{self, connect};
use crate::{SslMode, StoreError};

/// How long a request waits for a connection before it is told that the database is unavailable. Under the
/// five seconds that the contract allows for the answer, with room for the statement itself.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout of closing a pool: it waits for connections in use, which may wait for the server.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where Postgres is and which database to use on it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// Host name, address, or the folder of the server's socket (`DB_HOST`).
    pub host: String,
    /// TCP port (`DB_PORT`).
    pub port: u16,
    /// Role (`DB_USER`).
    pub user: String,
    /// Its password (`DB_PASSWORD`).
    pub password: String,
    /// Database name (`APP_DB_NAME` or `SYS_DB_NAME`).
    pub database: String,
    /// Whether TLS is used and what is checked (`DB_SSLMODE`).
    pub ssl_mode: SslMode,
}

impl std::fmt::Debug for DatabaseConfig {
    /// Without the password: this type ends up in logs and error chains.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}@{}:{}/{}",
            self.user, self.host, self.port, self.database
        )
    }
}

impl DatabaseConfig {
    /// Where the server is, as people write it: `host:port`, with brackets around an IPv6 address, or the path of its
    /// socket.
    #[must_use]
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }

    /// The options of a connection to this database, named so that `pg_stat_activity` tells who it is.
    pub fn connect_options(&self, application_name: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(&self.password)
            .database(&self.database)
            .ssl_mode(self.ssl_mode.driver())
            .application_name(application_name)
            // A pooler refuses what it does not know in the first message of a session; see `session.rs`.
            .extra_float_digits(None)
            // Statements are logged once, at the boundary that issued them, with ids; not here.
            .disable_statement_logging()
    }

    /// One connection outside any pool.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server does not answer in time.
    pub async fn connect(&self, application_name: &str) -> Result<PgConnection, StoreError> {
        connect(self.connect_options(application_name)).await
    }

    /// Another database on the same server.
    pub fn with_database(&self, database: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            ..self.clone()
        }
    }

    /// Creates the database if the server does not have it. Two processes may race: both succeed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server does not answer, [`StoreError::Refused`] if the role
    /// may not create databases.
    pub async fn ensure_exists(&self) -> Result<(), StoreError> {
        match self.connect("kodo-boot").await {
            Ok(connection) => return Ok(connection.close().await?),
            Err(error) if error.is_no_database() => {}
            Err(error) => return Err(error),
        }
        let mut admin = self.with_database("postgres").connect("kodo-boot").await?;
        let quoted = self.database.replace('"', "\"\"");
        // UTF-8 and byte order whatever the cluster's default is: JSON needs the one, and ids sort by the other.
        let created = sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "CREATE DATABASE \"{quoted}\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        )))
        .execute(&mut admin)
        .await;
        admin.close().await?;
        match created {
            Ok(_) => {
                tracing::info!(database = %self.database, "created the database");
                Ok(())
            }
            // 42P04 duplicate_database, 23505 unique_violation: another process created it first.
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("42P04" | "23505")) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The product database. Cheap to clone: a handle to one pool.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) config: Arc<DatabaseConfig>,
    /// The one way to write what a run records.
    pub(crate) journal: Journal<Product>,
    /// Permits to hold content, for half of the connections: each holder keeps one while it asks an artifact store that
    /// may be slow, and the other half stays free for all other statements.
    pub(crate) holders: Arc<Semaphore>,
    /// What [`Store::why_unavailable`] answered last.
    pub(crate) ailing: Arc<Mutex<Option<Ailment>>>,
}

/// Why the server was of no use, if it was of none, and when it was asked.
#[derive(Debug)]
pub(crate) struct Ailment {
    pub(crate) asked: Instant,
    pub(crate) why: Option<String>,
}

impl Store {
    /// A store on a pool of at most `max_connections`. Connects lazily: the first call that needs the server
    /// finds out whether it is there.
    pub fn new(config: &DatabaseConfig, max_connections: u32) -> Self {
        let options = config.connect_options("kodo-app");
        let pool = session::pool(options, max_connections, ACQUIRE_TIMEOUT);
        let journal = Journal::new(config.connect_options("kodo-journal"), Product);
        let holders = usize::try_from(max_connections / 2).unwrap_or(usize::MAX);
        Self {
            pool,
            config: Arc::new(config.clone()),
            journal,
            holders: Arc::new(Semaphore::new(holders.max(1))),
            ailing: Arc::default(),
        }
    }

    /// Whether the server answers a trivial statement.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Why nothing can be written, in words; `None` if something can.
    ///
    /// # Errors
    /// As any statement.
    pub async fn read_only(&self) -> Result<Option<&'static str>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        read_only(&mut connection).await
    }

    /// A connection outside the pool: after an outage each connection of the pool may be dead, and a worker that comes
    /// back must not try them one by one.
    pub(crate) async fn alone(&self) -> Result<PgConnection, StoreError> {
        connect((*self.pool.connect_options()).clone()).await
    }

    /// The name of the product database.
    #[must_use]
    pub fn database(&self) -> String {
        let options = self.pool.connect_options();
        options.get_database().unwrap_or_default().to_owned()
    }

    /// The server's major version, such as 18.
    ///
    /// # Errors
    /// As any statement.
    pub async fn server_major(&self) -> Result<i32, StoreError> {
        let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&self.pool)
            .await?;
        // 180004 is 18.4: since version 10 the last four digits are the minor one.
        Ok(number / 10_000)
    }

    /// Which product database this is: made by its first migration, the same for every process that uses it,
    /// another one after the schema was dropped and made anew.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn instance(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar("SELECT id FROM app.instance")
            .fetch_one(&self.pool)
            .await?)
    }

    /// Closes every connection, as far as that goes quickly. Calls in flight fail with
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        close(&self.pool).await;
    }
}

/// An address as [`DatabaseConfig::address`] writes it.
#[must_use]
pub fn address(host: &str, port: u16) -> String {
    match socket(host, port) {
        Some(socket) => socket.display().to_string(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    }
}

/// The socket of a server whose host is a folder; `None` if it is a name or an address.
#[must_use]
pub fn socket(host: &str, port: u16) -> Option<PathBuf> {
    let folder = Path::new(host);
    folder
        .is_absolute()
        .then(|| folder.join(format!(".s.PGSQL.{port}")))
}

/// Closes a pool, giving up on connections whose server is silent: the process is about to end.
pub async fn close(pool: &PgPool) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, pool.close()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_never_shows_in_debug_output() {
        let config = DatabaseConfig {
            host: "h".into(),
            port: 1,
            user: "u".into(),
            password: "hunter2".into(),
            database: "d".into(),
            ssl_mode: SslMode::default(),
        };
        assert_eq!(format!("{config:?}"), "u@h:1/d");
    }
}
