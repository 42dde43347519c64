//! Schemas and migrations.

use kodo_store::{Store, StoreError, known_migrations};

use super::examination::Examination;
use super::finding::Finding;

/// Looks at schema `app`; schema `dbos` is the engine's business.
pub(crate) async fn check(exam: &Examination, store: &Store) -> Vec<Finding> {
    match look(exam, store).await {
        Ok(findings) => findings,
        Err(error) => vec![Finding::problem(
            "schema",
            format!("schema app cannot be read: {error}"),
            exam.next.task("db:migrate"),
        )],
    }
}

async fn look(exam: &Examination, store: &Store) -> Result<Vec<Finding>, StoreError> {
    let database = &exam.settings.app.database;
    let next = &exam.next;
    if !store.has_schema("app").await? {
        return Ok(vec![Finding::problem(
            "schema",
            format!("database {database} has no schema app: it was never migrated"),
            next.task("db:migrate"),
        )]);
    }
    let mut findings = vec![Finding::ok(
        "schema",
        format!("database {database} has schema app"),
    )];
    let Some(applied) = store.applied_migrations().await? else {
        findings.push(Finding::problem(
            "migrations",
            "schema app was not made by migrations: none is recorded; a reset drops it with all its rows",
            next.task("db:reset"),
        ));
        return Ok(findings);
    };
    let before = findings.len();
    for migration in &applied {
        let version = migration.version;
        if migration.unchanged.is_none() {
            findings.push(Finding::problem(
                "migrations",
                format!(
                    "migration {version} is newer than this version of kodo, which knows {}: run the version that \
                     wrote it, or use another database",
                    known_migrations()
                ),
                next.task_with(&[("APP_DB_NAME", format!("{database}_2"))], "db:migrate"),
            ));
        } else if !migration.success {
            findings.push(Finding::problem(
                "migrations",
                format!("migration {version} was begun and did not come to its end; a reset drops schema app with all its rows"),
                next.task("db:reset"),
            ));
        } else if migration.unchanged == Some(false) {
            findings.push(Finding::problem(
                "migrations",
                format!("migration {version} was changed after it was applied here; a reset drops schema app with all its rows"),
                next.task("db:reset"),
            ));
        }
    }
    let known = applied
        .iter()
        .filter(|migration| migration.unchanged.is_some())
        .count();
    let pending = known_migrations().saturating_sub(known);
    if pending > 0 {
        findings.push(Finding::problem(
            "migrations",
            format!(
                "{pending} of {} migrations are not applied",
                known_migrations()
            ),
            next.task("db:migrate"),
        ));
    }
    if findings.len() == before {
        findings.push(Finding::ok(
            "migrations",
            format!("all {} are applied", applied.len()),
        ));
    }
    Ok(findings)
}
