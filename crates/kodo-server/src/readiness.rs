//! Whether this process can do its work: what boot has reached, and what answers right now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kodo_store::{MigrationState, Store, StoreError};
use serde::Serialize;
use tokio::time::timeout;

use crate::engine::Runs;

/// How long a probe waits for a database. Whoever asks for readiness is a machine with a timeout of its own, often
/// one or two seconds.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// How far boot has come: the binary tells, the server acts on it. Cheap to clone: a handle to one flag.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    migrated: Arc<AtomicBool>,
}

impl Readiness {
    /// A process that has just started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Boot has seen that the schema is there. From here on the routes that need the database are open; before, they
    /// answer 503, so that a missing table is never a client's problem.
    pub fn set_migrated(&self) {
        self.migrated.store(true, Ordering::Release);
    }

    /// Whether [`Self::set_migrated`] was called.
    #[must_use]
    pub fn is_migrated(&self) -> bool {
        self.migrated.load(Ordering::Acquire)
    }
}

/// The checks of `/readyz`, each with its verdict in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checks {
    /// `ok`, `unreachable`.
    app_database: &'static str,
    /// `ok`, `unreachable`.
    system_database: &'static str,
    /// `ok`, `pending`, `newer` (a later version of this program migrated the database), `unknown` (it cannot be
    /// asked).
    migrations: &'static str,
    /// `ok`, `starting`.
    engine: &'static str,
    /// `no`, `yes`.
    draining: &'static str,
}

impl Checks {
    /// Asks everyone at once.
    pub(crate) async fn run(store: &Store, runs: &dyn Runs, readiness: &Readiness) -> Self {
        let (migrations, system_database) = tokio::join!(
            timeout(PROBE_TIMEOUT, store.migration_state()),
            timeout(PROBE_TIMEOUT, runs.system_database()),
        );
        let (app_database, migrations) = verdict(migrations.ok(), readiness.is_migrated());
        Self {
            app_database,
            system_database: if system_database.unwrap_or(false) {
                "ok"
            } else {
                "unreachable"
            },
            migrations,
            engine: if runs.is_launched() { "ok" } else { "starting" },
            draining: if runs.is_draining() { "yes" } else { "no" },
        }
    }

    pub(crate) fn pass(&self) -> bool {
        [
            self.app_database,
            self.system_database,
            self.migrations,
            self.engine,
        ] == ["ok"; 4]
            && self.draining == "no"
    }
}

/// What one statement says about the product database and its schema; `None` where it was not answered in time.
fn verdict(
    state: Option<Result<MigrationState, StoreError>>,
    boot_saw_schema: bool,
) -> (&'static str, &'static str) {
    match state {
        Some(Ok(MigrationState::AtHead)) if boot_saw_schema => ("ok", "ok"),
        Some(Ok(MigrationState::AtHead | MigrationState::Pending(_))) => ("ok", "pending"),
        Some(Ok(MigrationState::Newer(_))) => ("ok", "newer"),
        // It answered, but not this question.
        Some(Err(error)) if !error.is_unavailable() => ("ok", "unknown"),
        Some(Err(_)) | None => ("unreachable", "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Checks = Checks {
        app_database: "ok",
        system_database: "ok",
        migrations: "ok",
        engine: "ok",
        draining: "no",
    };

    #[test]
    fn every_single_check_can_fail_the_whole() {
        assert!(FINE.pass());
        for failing in [
            Checks {
                app_database: "unreachable",
                ..FINE
            },
            Checks {
                system_database: "unreachable",
                ..FINE
            },
            Checks {
                migrations: "pending",
                ..FINE
            },
            Checks {
                engine: "starting",
                ..FINE
            },
            Checks {
                draining: "yes",
                ..FINE
            },
        ] {
            assert!(!failing.pass(), "{failing:?}");
        }
    }

    #[test]
    fn one_statement_tells_database_and_migrations() {
        for (state, seen, expected) in [
            (Some(Ok(MigrationState::AtHead)), true, ("ok", "ok")),
            (Some(Ok(MigrationState::AtHead)), false, ("ok", "pending")),
            (
                Some(Ok(MigrationState::Pending(1))),
                true,
                ("ok", "pending"),
            ),
            (Some(Ok(MigrationState::Newer(9))), true, ("ok", "newer")),
            (
                Some(Err(StoreError::Corrupt("x".into()))),
                true,
                ("ok", "unknown"),
            ),
            (None, true, ("unreachable", "unknown")),
        ] {
            assert_eq!(verdict(state, seen), expected);
        }
    }
}
