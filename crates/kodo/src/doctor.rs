//! The triage matrix of the operator's course as code: what can be wrong, how it is seen, what to do next.
//!
//! Works when nothing else does: no check needs another one's success unless it says so, none waits for ever, and
//! nothing is written or started.

mod clock;
mod configuration;
mod database;
mod disk;
mod engine;
mod finding;
mod leftovers;
mod listeners;
mod modes;
mod next;
mod ports;
mod sandboxes;
mod schema;
mod tools;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::commands::db::devdb_config;
use crate::devdb::DevDbConfig;
use crate::settings::{Given, Settings};

use database::Reached;
pub(crate) use finding::{Finding, Report};
use next::Next;

/// How much of the whole time reaching the database may take; the rest is for looking into it.
const REACH: f64 = 0.6;

/// What the checks look at.
pub(crate) struct Patient {
    settings: Settings,
    devdb: DevDbConfig,
    next: Next,
    /// When the last finding is due.
    end: Instant,
    /// How long all may take.
    patience: Duration,
}

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
    let patient = Patient {
        devdb: devdb_config(&settings),
        settings,
        next,
        end,
        patience,
    };
    let patient = &patient;
    // Beside each other. A new check is a file here and a line in the list.
    let (ports, database, disk, leftovers, modes, sandboxes, tools) = tokio::join!(
        patient.within("ports", ports::check(patient)),
        with_database(patient),
        patient.within("disk", aside("disk", disk::check(patient))),
        patient.within("leftovers", aside("leftovers", leftovers::folders(patient))),
        patient.within("modes", aside("modes", modes::check(patient))),
        patient.within("sandbox", sandboxes::check(patient)),
        patient.within("tools", aside("tools", tools::check(patient))),
    );
    for found in [ports, database, disk, leftovers, modes, sandboxes, tools] {
        findings.extend(found);
    }
    Report::new(findings)
}

/// The checks that need the database, once it is known whether it answers.
async fn with_database(patient: &Patient) -> Vec<Finding> {
    let limit = patient.patience.mul_f64(REACH);
    let reached = tokio::time::timeout(limit, database::reach(patient)).await;
    let (mut findings, reached) =
        reached.unwrap_or_else(|_| (vec![database::silent(patient, limit)], Reached::Nothing));
    let (product, server) = match &reached {
        Reached::Product(store) => (Some(store), Some(store)),
        Reached::Server(store) => (None, Some(store)),
        Reached::Nothing => (None, None),
    };
    let of_product = async {
        let Some(store) = product else {
            return skipped(
                &["schema", "migrations", "engine", "workers", "runs"],
                "the product database is not reachable",
            );
        };
        let (mut schema, engine) = tokio::join!(
            patient.within("schema", schema::check(patient, store)),
            patient.within("engine", engine::check(patient, store)),
        );
        schema.extend(engine);
        schema
    };
    let of_server = async {
        let Some(store) = server else {
            return skipped(
                &["clock", "left databases"],
                "the database is not reachable",
            );
        };
        let (mut clock, left) = tokio::join!(
            patient.within("clock", clock::check(patient, store)),
            patient.within("left databases", leftovers::databases(patient, store)),
        );
        clock.extend(left);
        clock
    };
    let (of_product, of_server) = tokio::join!(of_product, of_server);
    findings.extend(of_product);
    findings.extend(of_server);
    findings
}

fn skipped(checks: &[&'static str], why: &str) -> Vec<Finding> {
    checks
        .iter()
        .map(|check| Finding::skipped(check, why))
        .collect()
}

impl Patient {
    /// A check with its deadline.
    async fn within(
        &self,
        check: &'static str,
        found: impl Future<Output = Vec<Finding>>,
    ) -> Vec<Finding> {
        tokio::time::timeout_at(self.end, found)
            .await
            .unwrap_or_else(|_| {
                let what = format!("could not be looked at within {:?}", self.patience);
                vec![Finding::warn(
                    check,
                    what,
                    self.next.kodo("doctor --patience 60"),
                )]
            })
    }
}

/// A check that blocks (a hanging file system, a large `/proc`), on a thread that may be left behind.
async fn aside(
    check: &'static str,
    work: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            vec![Finding::warn(
                check,
                format!("could not be looked at: {error}"),
                None,
            )]
        })
}
