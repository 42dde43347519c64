//! What `kodo doctor` reports about the product database and its server. Reads only.

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
}

impl Store {
    /// The server, and what its clock says right now.
    ///
    /// # Errors
    /// As any statement.
    pub async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let (version, number, clock_micros, counts): (String, i32, i64, Vec<i64>) =
            sqlx::query_as(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
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
        })
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
