//! Who keeps a session of ours waiting: an open transaction, a lock.

use std::fmt;
use std::time::Duration;

use sqlx::PgExecutor;
use sqlx::postgres::types::PgInterval;

use crate::{DatabaseConfig, Store, StoreError};

/// A session that others wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Its process id on the server.
    pub pid: i32,
    /// The application's name, empty if it gave none.
    pub application: String,
    /// What it is doing, as `pg_stat_activity` says it, such as `idle in transaction`; empty if the role may not know.
    pub state: String,
    /// How long its transaction has been open, or the session if it has none.
    pub age: Duration,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, age, .. } = self;
        let application = match self.application.as_str() {
            "" => "without an application name",
            name => name,
        };
        write!(f, "session {pid} of the server ({application}")?;
        if !self.state.is_empty() {
            write!(f, ", {}", self.state)?;
        }
        write!(f, ", for {} s)", age.as_secs())
    }
}

impl DatabaseConfig {
    /// The sessions that keep sessions of ours in this database waiting for a lock. Those that wait themselves are left
    /// out: somebody else keeps them.
    ///
    /// # Errors
    /// As any statement.
    pub async fn blockers(&self) -> Result<Vec<Blocker>, StoreError> {
        let mut connection = self.connect("kodo-watch").await?;
        blockers_in(&mut connection, &[&self.database], Duration::ZERO).await
    }
}

impl Store {
    /// The same for the product database.
    ///
    /// # Errors
    /// As any statement.
    pub async fn blockers(&self) -> Result<Vec<Blocker>, StoreError> {
        let mut connection = self.alone().await?;
        blockers_in(&mut connection, &[&self.database()], Duration::ZERO).await
    }
}

/// The sessions that keep sessions of ours in these databases of a server waiting for a lock, for at least this long.
///
/// # Errors
/// As any statement.
pub async fn blockers_in(
    server: impl PgExecutor<'_>,
    databases: &[&str],
    at_least: Duration,
) -> Result<Vec<Blocker>, StoreError> {
    let rows: Vec<(i32, String, String, i64)> = sqlx::query_as(
        "SELECT DISTINCT b.pid, coalesce(b.application_name, ''), coalesce(b.state, ''),
                greatest(0, extract(epoch FROM clock_timestamp() - coalesce(b.xact_start, b.backend_start)))::bigint
         FROM pg_stat_activity a
         CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS k (pid)
         JOIN pg_stat_activity b ON b.pid = k.pid
         WHERE a.datname::text = ANY ($1) AND a.application_name LIKE 'kodo-%' AND a.wait_event_type = 'Lock'
           AND a.state_change <= clock_timestamp() - $2
           AND b.wait_event_type IS DISTINCT FROM 'Lock'
         ORDER BY b.pid",
    )
    .bind(databases)
    .bind(interval(at_least))
    .fetch_all(server)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(pid, application, state, age)| Blocker {
            pid,
            application,
            state,
            age: Duration::from_secs(u64::try_from(age).unwrap_or_default()),
        })
        .collect())
}

/// What statements of ours in these databases wait for within the server, other than a lock, and have for at least this
/// long: events as `pg_stat_activity` calls them, such as `IPC SyncRep`.
///
/// # Errors
/// As any statement.
pub async fn waits_in(
    server: impl PgExecutor<'_>,
    databases: &[&str],
    at_least: Duration,
) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT wait_event_type || ' ' || wait_event FROM pg_stat_activity
         WHERE datname::text = ANY ($1) AND application_name LIKE 'kodo-%' AND state = 'active'
           AND wait_event_type NOT IN ('Lock', 'Client') AND state_change <= clock_timestamp() - $2
         ORDER BY 1",
    )
    .bind(databases)
    .bind(interval(at_least))
    .fetch_all(server)
    .await?)
}

fn interval(length: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(length.as_micros()).unwrap_or(i64::MAX),
    }
}

/// The sessions in a sentence; `None` if there are none.
#[must_use]
pub fn waits_for(blockers: &[Blocker]) -> Option<String> {
    let blockers: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    (!blockers.is_empty()).then(|| format!("waits for {}", blockers.join(", ")))
}
