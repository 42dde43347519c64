//! What `kodo doctor` reports about the product database and its server. Reads only.

use crate::migrations::known_checksum;
use crate::{Store, StoreError};

/// The server behind a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// As the server says it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Major version, such as 15.
    pub major: i32,
    /// Its clock, in microseconds since the epoch.
    pub clock_micros: i64,
    /// Connections that clients have, and how many are allowed: of the server, and of the role and the database where
    /// they have a limit of their own.
    pub connections: Vec<(&'static str, i64, i64)>,
    /// The encoding of the database.
    pub encoding: String,
}

/// A migration that the database says was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its number.
    pub version: i64,
    /// Whether it was applied completely.
    pub success: bool,
    /// Whether it was applied from the text that this version has; `None` if this version does not know the migration.
    pub unchanged: Option<bool>,
}

impl Store {
    /// The server, and what its clock says right now.
    ///
    /// # Errors
    /// As any statement.
    pub async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let (version, number, clock_micros, encoding, counts): (String, i32, i64, String, Vec<i64>) =
            sqlx::query_as(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, current_setting('server_encoding'),
                        ARRAY[
                            (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                            current_setting('max_connections')::bigint,
                            (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user),
                            (SELECT CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END::bigint
                             FROM pg_roles WHERE rolname = current_user),
                            (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
                            (SELECT datconnlimit::bigint FROM pg_database WHERE datname = current_database())]",
            )
            .fetch_one(&self.pool)
            .await?;
        let pairs = ["the server", "the role", "the database"].into_iter();
        let pairs = pairs.zip(counts.chunks(2).map(|pair| (pair[0], pair[1])));
        Ok(ServerFacts {
            version,
            major: number / 10_000,
            clock_micros,
            connections: pairs
                .filter(|(_, (_, most))| *most >= 0)
                .map(|(whose, (used, most))| (whose, used, most))
                .collect(),
            encoding,
        })
    }

    /// Whether this database has a schema of that name.
    ///
    /// # Errors
    /// As any statement.
    pub async fn has_schema(&self, name: &str) -> Result<bool, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
                .bind(name)
                .fetch_one(&self.pool)
                .await?,
        )
    }

    /// The migrations that the database has recorded; `None` if none was ever begun.
    ///
    /// # Errors
    /// As any statement.
    pub async fn applied_migrations(&self) -> Result<Option<Vec<AppliedMigration>>, StoreError> {
        let there: bool =
            sqlx::query_scalar("SELECT to_regclass('app.schema_migrations') IS NOT NULL")
                .fetch_one(&self.pool)
                .await?;
        if !there {
            return Ok(None);
        }
        let rows: Vec<(i64, bool, Vec<u8>)> = sqlx::query_as(
            "SELECT version, success, checksum FROM app.schema_migrations ORDER BY version",
        )
        .fetch_all(&self.pool)
        .await?;
        let applied = rows
            .into_iter()
            .map(|(version, success, checksum)| AppliedMigration {
                version,
                success,
                unchanged: known_checksum(version).map(|known| known == checksum),
            });
        Ok(Some(applied.collect()))
    }

    /// Runs that are not over: status, how many, and the age of the oldest in seconds.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn unfinished_counts(&self) -> Result<Vec<(String, i64, i64)>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT status, count(*), extract(epoch FROM now() - min(created_at))::bigint
             FROM app.runs WHERE status IN ('queued', 'running', 'waiting_input')
             GROUP BY status ORDER BY status",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Every slot that was ever held, with who held it last and did not give it back.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn slot_holders(&self) -> Result<Vec<(i32, Option<String>)>, StoreError> {
        Ok(
            sqlx::query_as("SELECT slot, holder FROM app.workers ORDER BY slot")
                .fetch_all(&self.pool)
                .await?,
        )
    }

    /// The names of the server's databases that begin with one of the prefixes.
    ///
    /// # Errors
    /// As any statement.
    pub async fn databases_with(&self, prefixes: &[&str]) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT datname FROM pg_database
             WHERE EXISTS (SELECT FROM unnest($1::text[]) AS p (prefix) WHERE starts_with(datname, p.prefix))
             ORDER BY datname",
        )
        .bind(prefixes)
        .fetch_all(&self.pool)
        .await?)
    }
}
