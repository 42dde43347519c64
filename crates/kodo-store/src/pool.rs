//! The connection pool and how to reach the server.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::StoreError;

/// How long a request waits for a connection before it is told that the database is unavailable. Under the
/// five seconds that the contract allows for the answer, with room for the statement itself.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that was used this recently is trusted to be alive.
const PING_AFTER_IDLE: Duration = Duration::from_millis(250);

/// Where Postgres is and which database to use on it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// Host name or address (`DB_HOST`).
    pub host: String,
    /// TCP port (`DB_PORT`).
    pub port: u16,
    /// Role (`DB_USER`).
    pub user: String,
    /// Its password (`DB_PASSWORD`).
    pub password: String,
    /// Database name (`APP_DB_NAME` or `SYS_DB_NAME`).
    pub database: String,
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
    /// The options of a connection to this database, named so that `pg_stat_activity` tells who it is.
    pub fn connect_options(&self, application_name: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(&self.password)
            .database(&self.database)
            .ssl_mode(PgSslMode::Prefer)
            .application_name(application_name)
            // Statements are logged once, at the boundary that issued them, with ids; not here.
            .disable_statement_logging()
    }

    /// The same database as a URL, for libraries that take nothing else.
    pub fn url(&self) -> String {
        self.connect_options("kodo-engine").to_url_lossy().into()
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
    /// [`StoreError::Unavailable`] where the server does not answer, [`StoreError::Refused`] where the role
    /// may not create databases.
    pub async fn ensure_exists(&self) -> Result<(), StoreError> {
        match PgConnection::connect_with(&self.connect_options("kodo-boot")).await {
            Ok(connection) => return Ok(connection.close().await?),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("3D000") => {}
            Err(error) => return Err(error.into()),
        }
        let maintenance = self.with_database("postgres");
        let mut admin =
            PgConnection::connect_with(&maintenance.connect_options("kodo-boot")).await?;
        let quoted = self.database.replace('"', "\"\"");
        let created = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE \"{quoted}\"")))
            .execute(&mut admin)
            .await;
        admin.close().await?;
        match created {
            Ok(_) => {
                tracing::info!(database = %self.database, "created the database");
                Ok(())
            }
            // 42P04 duplicate_database, 23505 unique_violation: somebody else was faster.
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
}

impl Store {
    /// A store on a pool of at most `max_connections`. Connects lazily: the first call that needs the server
    /// finds out whether it is there.
    pub fn new(config: &DatabaseConfig, max_connections: u32) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
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
            .connect_lazy_with(config.connect_options("kodo-app"));
        Self { pool }
    }

    /// Whether the server answers a trivial statement.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection. Calls in flight fail with [`StoreError::Unavailable`].
    pub async fn close(&self) {
        self.pool.close().await;
    }
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
        };
        assert_eq!(format!("{config:?}"), "u@h:1/d");
    }

    #[test]
    fn a_url_survives_names_that_need_escaping() {
        let config = DatabaseConfig {
            host: "127.0.0.1".into(),
            port: 54329,
            user: "po st".into(),
            password: "p@ss/word?&#".into(),
            database: "a b".into(),
        };
        let parsed: PgConnectOptions = config.url().parse().unwrap();
        assert_eq!(parsed.get_username(), "po st");
        assert_eq!(parsed.get_database(), Some("a b"));
        assert_eq!(parsed.get_port(), 54329);
    }
}
