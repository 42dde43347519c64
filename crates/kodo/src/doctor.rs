//! The triage matrix of the operator's course as code: what can be wrong, how it is seen, what to do next.
//!
//! Works when nothing else does: no check needs another one's success unless it says so, none waits for ever, and
//! nothing is written or started.

mod artifacts;
mod blocked;
mod clock;
mod configuration;
mod cures;
mod database;
mod disk;
mod engine;
mod examination;
mod finding;
mod leftovers;
mod listeners;
mod modes;
mod next;
mod ports;
mod sandboxes;
mod schema;
mod tools;

use std::time::Duration;

use kodo_engine::{Inspector, LaunchLock};
use kodo_store::Store;
use tokio::time::Instant;

use crate::commands::db::devdb_config;
use crate::settings::{Given, Settings};

use database::Reached;
use examination::{Examination, aside};
pub(crate) use finding::{Finding, Report};
use next::Next;

/// How much of the whole time reaching the database may take; the rest is for looking into it.
const REACH: f64 = 0.6;

/// Makes every check.
pub(crate) async fn examine(given: &Given, patience: Duration) -> Report {
    let end = Instant::now() + patience;
    let (settings, refused) = Settings::diagnose(given);
    let next = Next::new(given);
    let mut findings = configuration::check(settings.as_ref(), &refused, &next);
    let Some(settings) = settings else {
        findings.push(Finding::skipped(
            "everything else",
            "there are no settings to go by",
        ));
        return Report::new(findings);
    };
    let exam = Examination {
        devdb: devdb_config(&settings),
        settings,
        next,
        end,
        patience,
    };
    let exam = &exam;
    // Beside each other. A new check is a file here and a line in the list.
    let (ports, database, disk, leftovers, modes, sandboxes, tools) = tokio::join!(
        exam.within("ports", ports::check(exam)),
        async {
            match refused.iter().any(configuration::is_of_database) {
                true => Finding::all_skipped(
                    &["database"],
                    "which one it is cannot be read from the settings",
                ),
                false => with_database(exam).await,
            }
        },
        exam.within("disk", aside("disk", disk::check(exam))),
        exam.within("leftovers", aside("leftovers", leftovers::folders(exam))),
        exam.within("modes", aside("modes", modes::check(exam))),
        exam.within("sandbox", sandboxes::check(exam)),
        exam.within("tools", aside("tools", tools::check(exam))),
    );
    for found in [ports, database, disk, leftovers, modes, sandboxes, tools] {
        findings.extend(found);
    }
    Report::new(findings)
}

/// Ends the session that has a launch lock although no service lives, if there is one and `agreed` says so of it. Returns
/// what was done; `None` if there is none.
///
/// # Errors
/// If the server does not answer, or does not let us.
pub(crate) async fn break_launch_lock(
    settings: Settings,
    agreed: impl FnOnce(&LaunchLock) -> bool,
) -> anyhow::Result<Option<String>> {
    let store = Store::new(&settings.app, 1);
    let Some(lock) = blocked::left_behind(&settings.system, &store).await else {
        return Ok(None);
    };
    if !agreed(&lock) {
        return Ok(Some(
            "nothing was changed: answer yes, or call it with --yes".to_owned(),
        ));
    }
    let mut inspector = Inspector::connect(&settings.system).await?;
    inspector.end_session(lock.pid).await?;
    Ok(Some(format!("ended {lock}: the launch lock is free")))
}

/// The checks that need the database, once it is known whether it answers.
async fn with_database(exam: &Examination) -> Vec<Finding> {
    let limit = exam.patience.mul_f64(REACH);
    let reached = tokio::time::timeout(limit, database::reach(exam)).await;
    let (mut findings, reached) =
        reached.unwrap_or_else(|_| (vec![database::silent(exam, limit)], Reached::Nothing));
    let (product, server) = match &reached {
        Reached::Product(store) => (Some(store), Some(store)),
        Reached::Server(store) => (None, Some(store)),
        Reached::Nothing => (None, None),
    };
    let of_product = async {
        let Some(store) = product else {
            return Finding::all_skipped(
                &["schema", "migrations", "engine", "workers", "runs"],
                "the product database is not reachable",
            );
        };
        let (mut schema, engine, blocked, artifacts) = tokio::join!(
            exam.within("schema", schema::check(exam)),
            exam.within("engine", engine::check(exam, store)),
            exam.within("blocked", blocked::check(exam, store)),
            exam.within("artifact store", artifacts::check(exam, store)),
        );
        schema.extend(engine);
        schema.extend(blocked);
        schema.extend(artifacts);
        schema
    };
    let of_server = async {
        let Some(store) = server else {
            return Finding::all_skipped(
                &["clock", "left databases"],
                "the database is not reachable",
            );
        };
        let (mut clock, left) = tokio::join!(
            exam.within("clock", clock::check(exam, store)),
            exam.within("left databases", leftovers::databases(exam, store)),
        );
        clock.extend(left);
        clock
    };
    let (of_product, of_server) = tokio::join!(of_product, of_server);
    findings.extend(of_product);
    findings.extend(of_server);
    findings
}
