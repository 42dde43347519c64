//! `GET /readyz`: whether the process can do its work, and what fails if it cannot.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kodo_store::{MigrationState, StoreError};
use serde::Serialize;
use tokio::time::timeout;

use crate::app::App;
use crate::error::ApiError;
use crate::http::answer;
use crate::route::{Access, Operation};

/// How long a check waits for a database. Those who probe readiness have timeouts of their own, often of one or two
/// seconds.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1200);

/// How long is asked why one is of no use.
const WHY_TIMEOUT: Duration = Duration::from_millis(400);

pub(crate) fn operation() -> Operation {
    Operation::get("/readyz", Access::Public, handler)
        .answers(StatusCode::OK, "every check passes")
        .answers(StatusCode::SERVICE_UNAVAILABLE, "a check fails")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    ready: bool,
    checks: Checks,
    /// Why a check fails, for people, if more is known than its word.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<&'static str, String>,
    /// What an operator should know although the process can do its work. Absent if there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Lines of the log that could not be written since the start. Does not make the service unready.
    #[serde(skip_serializing_if = "is_zero")]
    log_lines_lost: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Answers 200 if every check passes, otherwise 503.
async fn handler(State(app): State<App>) -> Result<Response, ApiError> {
    let mut reasons = app.readiness().reasons();
    let checks = Checks::run(&app, &mut reasons).await;
    let ready = checks.pass();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answered = Ready {
        ready,
        checks,
        reasons,
        warnings: app.engine().warnings(),
        log_lines_lost: app.readiness().lost_log_lines(),
    };
    Ok(answer::json(status, serde_json::to_string(&answered)?))
}

/// The result of each check of `/readyz`, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checks {
    /// `ok`, `unreachable`, `readOnly`.
    app_database: &'static str,
    /// `ok`, `unreachable`, `readOnly`.
    system_database: &'static str,
    /// `ok`, `pending`, `newer` (a later version of this program migrated the database), `unknown` (the
    /// query failed).
    migrations: &'static str,
    /// `ok`, `starting`, `stalled` (it has waited too long for a database: nothing begins).
    engine: &'static str,
    /// `no`, `yes`.
    draining: &'static str,
    /// Told only if it fails: `unavailable`.
    #[serde(skip_serializing_if = "is_ok")]
    artifact_store: &'static str,
}

fn is_ok(word: &&'static str) -> bool {
    *word == "ok"
}

impl Checks {
    /// Runs all checks at the same time, and adds what is known of why one fails.
    async fn run(app: &App, reasons: &mut BTreeMap<&'static str, String>) -> Self {
        let (store, engine, readiness) = (app.store(), app.engine(), app.readiness());
        // Before boot has opened it, the checks of the databases say what it waits for.
        let artifacts = async {
            match app.artifacts() {
                Ok(artifacts) => artifacts.probe().await.map_err(|error| error.to_string()),
                Err(_) => Ok(()),
            }
        };
        let (artifacts, migrations, read_only, system_database) = tokio::join!(
            timeout(PROBE_TIMEOUT, artifacts),
            timeout(PROBE_TIMEOUT, store.migration_state()),
            timeout(PROBE_TIMEOUT, store.read_only()),
            timeout(PROBE_TIMEOUT, engine.system_database()),
        );
        let (mut app_database, migrations) = verdict(migrations.ok(), readiness.is_migrated());
        if app_database == "unreachable" {
            let why = timeout(WHY_TIMEOUT, store.why_unavailable()).await;
            if let Ok(Some(why)) = why {
                reasons.insert("appDatabase", why);
            }
        } else if let Ok(Ok(Some(why))) = read_only {
            app_database = "readOnly";
            reasons.insert("appDatabase", why.to_owned());
        }
        let system_database = match system_database {
            Ok(Ok(None)) => "ok",
            Ok(Ok(Some(why))) => {
                reasons.insert("systemDatabase", why.to_owned());
                "readOnly"
            }
            Ok(Err(_)) | Err(_) => {
                let why = engine.why_system_database_is_unavailable();
                if let Ok(Some(why)) = timeout(WHY_TIMEOUT, why).await {
                    reasons.insert("systemDatabase", why);
                }
                "unreachable"
            }
        };
        let artifacts =
            artifacts.unwrap_or_else(|_| Err(format!("no answer within {PROBE_TIMEOUT:?}")));
        let artifact_store = match artifacts {
            Ok(()) => "ok",
            Err(why) => {
                reasons.insert("artifactStore", why);
                "unavailable"
            }
        };
        if let Some(why) = engine.standstill() {
            reasons.insert("engine", why);
        }
        Self {
            app_database,
            system_database,
            migrations,
            engine: match engine.is_launched() {
                true if engine.is_stalled() => "stalled",
                true => "ok",
                false => "starting",
            },
            draining: if engine.is_draining() { "yes" } else { "no" },
            artifact_store,
        }
    }

    fn pass(&self) -> bool {
        [
            self.app_database,
            self.system_database,
            self.migrations,
            self.engine,
            self.artifact_store,
        ] == ["ok"; 5]
            && self.draining == "no"
    }
}

/// The results for the product database and its migrations, from one query; `None` if it was not answered in time.
fn verdict(
    state: Option<Result<MigrationState, StoreError>>,
    boot_saw_schema: bool,
) -> (&'static str, &'static str) {
    match state {
        Some(Ok(MigrationState::AtHead)) if boot_saw_schema => ("ok", "ok"),
        Some(Ok(MigrationState::AtHead | MigrationState::Pending(_))) => ("ok", "pending"),
        Some(Ok(MigrationState::Newer(_))) => ("ok", "newer"),
        // The database answers, but not this query.
        Some(Err(error)) if !error.is_transient() => ("ok", "unknown"),
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
        artifact_store: "ok",
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
                engine: "stalled",
                ..FINE
            },
            Checks {
                draining: "yes",
                ..FINE
            },
            Checks {
                artifact_store: "unavailable",
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
