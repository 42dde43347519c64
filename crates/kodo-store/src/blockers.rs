//! Who keeps a session of ours waiting: an open transaction, a lock.

use std::fmt;
use std::time::Duration;

use sqlx::PgConnection;

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
        read(&mut self.connect("kodo-watch").await?).await
    }
}

impl Store {
    /// The same for the product database.
    ///
    /// # Errors
    /// As any statement.
    pub async fn blockers(&self) -> Result<Vec<Blocker>, StoreError> {
        read(&mut self.alone().await?).await
    }
}

async fn read(connection: &mut PgConnection) -> Result<Vec<Blocker>, StoreError> {
    let rows: Vec<(i32, String, String, i64)> = sqlx::query_as(
        "SELECT DISTINCT b.pid, coalesce(b.application_name, ''), coalesce(b.state, ''),
                greatest(0, extract(epoch FROM clock_timestamp() - coalesce(b.xact_start, b.backend_start)))::bigint
         FROM pg_stat_activity a
         CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS k (pid)
         JOIN pg_stat_activity b ON b.pid = k.pid
         WHERE a.datname = current_database() AND a.application_name LIKE 'kodo-%' AND a.wait_event_type = 'Lock'
           AND b.wait_event_type IS DISTINCT FROM 'Lock'
         ORDER BY b.pid",
    )
    .fetch_all(connection)
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

/// The sessions in a sentence; `None` if there are none.
#[must_use]
pub fn waits_for(blockers: &[Blocker]) -> Option<String> {
    let blockers: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    (!blockers.is_empty()).then(|| format!("waits for {}", blockers.join(", ")))
}
