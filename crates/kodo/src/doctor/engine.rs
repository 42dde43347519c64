//! The engine's rows: what is unfinished, and whether anybody works on it.

use kodo_engine::{InspectError, Inspector, UnfinishedWork, WorkerSlot, schema_warning};
use kodo_store::{Cause, Part, SchemaError, Store, StoreError};

use super::examination::Examination;
use super::finding::Finding;
use crate::trouble;

/// A run that is queued for longer while a worker is idle should have begun: a sweep comes every two seconds.
const OVERDUE_SECONDS: i64 = 10;

/// Looks at workflows, workers and runs.
pub(crate) async fn check(exam: &Examination, store: &Store) -> Vec<Finding> {
    let all_skipped = |why: &str| Finding::all_skipped(&["engine", "workers", "runs"], why);
    // What is wrong there is told by its own check.
    match exam.settings.app.schema_errors().await {
        Ok(errors) if errors.iter().any(SchemaError::is_unreadable) => {
            return all_skipped("the product schema is not migrated");
        }
        Ok(_) => {}
        Err(_) => return all_skipped("the product schema cannot be read"),
    }
    let instance = match store.instance().await {
        Ok(instance) => instance,
        Err(error) => return all_skipped(&error.to_string()),
    };
    if let Err(error @ (StoreError::OtherSystem { .. } | StoreError::CopysSystem { .. })) =
        store.check_binding(&exam.settings.system).await
    {
        // Not the command that gives up what is recorded: a wrong name is the likelier reason.
        let next = match &error {
            StoreError::OtherSystem { bound, .. } => {
                let right = [("SYS_DB_NAME", bound.clone())];
                exam.next.task_with(&right, "start")
            }
            _ => "less docs/operations.md".to_owned(),
        };
        let mut findings = vec![Finding::problem("engine", error.to_string(), next)];
        findings.extend(Finding::all_skipped(
            &["workers", "runs"],
            "they are in another system database",
        ));
        return findings;
    }
    let trouble = match trouble::look(&exam.settings, Part::System).await {
        // Can be read all the same, and is told elsewhere: that it is read-only with the database, a version of the schema
        // that nobody has tried below.
        None => None,
        Some(it) if matches!(it.cause, Cause::ReadOnly | Cause::Standby | Cause::Newer) => None,
        trouble => trouble,
    };
    let trouble = match trouble {
        Some(trouble) => trouble,
        None => match look(exam, store, &instance).await {
            Ok(findings) => return findings,
            Err(InspectError::Product(error)) => {
                trouble::of(&exam.settings, Part::Product, &error).await
            }
            Err(InspectError::Store(error)) => {
                trouble::of(&exam.settings, Part::System, &error).await
            }
            Err(error @ InspectError::NotFound(_)) => {
                return vec![Finding::warn("engine", error.to_string(), None)];
            }
        },
    };
    let mut findings = vec![match trouble.cause.is_mended_by_a_start() {
        true => Finding::warn("engine", trouble.to_string(), Some(exam.next.task("start"))),
        false => exam.problem("engine", Part::System, &trouble),
    }];
    let why = "the system database is of no use yet";
    findings.extend(Finding::all_skipped(&["workers", "runs"], why));
    findings
}

async fn look(
    exam: &Examination,
    store: &Store,
    instance: &str,
) -> Result<Vec<Finding>, InspectError> {
    let mut inspector = Inspector::connect(&exam.settings.system).await?;
    let counts = inspector.counts(instance).await?;
    let unfinished = inspector.unfinished(instance).await?;
    let workers = inspector.workers(store, instance).await?;
    let runs = store.unfinished_counts().await?;
    let next = &exam.next;
    let mut findings = Vec::new();

    findings.push(match inspector.workflows(1).await?.first() {
        None if workers.iter().any(|worker| worker.held) => {
            Finding::ok("engine", "no workflow yet; a worker waits for the first")
        }
        None => Finding::warn(
            "engine",
            "no workflow yet: the engine's tables are there, and nothing was started",
            Some(next.task("start")),
        ),
        Some(newest) => {
            let counts: Vec<String> = counts
                .iter()
                .map(|(status, count)| format!("{count} {status}"))
                .collect();
            let counts = match counts.is_empty() {
                true => "none of this product database".to_owned(),
                false => counts.join(", "),
            };
            Finding::ok(
                "engine",
                format!(
                    "workflows: {counts}; the newest is {}, {}, of {}",
                    newest.workflow_id, newest.status, newest.created_at
                ),
            )
        }
    });

    let schema = inspector.schema().await?;
    if let Some(refusal) = schema.refusal(exam.settings.work.engine_schema_accept) {
        let next = next.task("start");
        findings.push(Finding::problem("engine schema", refusal, next));
    } else if let Ok(Some(warning)) = schema_warning(&exam.settings.system).await {
        findings.push(Finding::warn("engine schema", warning, None));
    }

    let live: Vec<&WorkerSlot> = workers.iter().filter(|worker| worker.held).collect();
    let named: Vec<String> = live.iter().map(|worker| named(worker)).collect();
    findings.push(Finding::ok(
        "workers",
        match live.len() {
            0 => "none runs".to_owned(),
            count => format!("{count} live: {}", named.join(", ")),
        },
    ));
    let gone: Vec<&str> = workers
        .iter()
        .filter(|worker| worker.dead && !worker.held)
        .map(|worker| worker.executor_id.as_str())
        .collect();
    if !gone.is_empty() && live.is_empty() {
        findings.push(Finding::warn(
            "workers",
            format!(
                "{} ended without giving its slot back (killed); the next start takes it again",
                gone.join(", ")
            ),
            Some(next.task("start")),
        ));
    }

    for work in unfinished.iter().filter(|work| work.is_abandoned(&workers)) {
        findings.push(Finding::warn(
            "abandoned",
            format!(
                "{} workflows are PENDING for {}, which does not run; untouched for {} s. {}",
                work.workflows,
                work.executor_id.as_deref().unwrap_or_default(),
                work.idle_seconds,
                match live.is_empty() {
                    true => "The next service goes on with them",
                    false => "A live worker takes them over within seconds",
                }
            ),
            Some(match live.is_empty() {
                true => next.task("start"),
                false => next.kodo("workflow list"),
            }),
        ));
    }
    let waiting: i64 = runs.iter().map(|(_, count, _)| count).sum();
    let listed: Vec<String> = runs
        .iter()
        .map(|(status, count, oldest)| format!("{count} {status}, the oldest for {oldest} s"))
        .collect();
    let idle = live.iter().find(|worker| {
        let busy =
            |work: &&UnfinishedWork| work.executor_id.as_deref() == Some(&worker.executor_id);
        !unfinished.iter().any(|work| busy(&work))
    });
    let overdue = runs
        .iter()
        .find(|(status, _, oldest)| status == "queued" && *oldest > OVERDUE_SECONDS);
    if let (Some(idle), Some((_, count, oldest))) = (idle, overdue) {
        findings.push(Finding::warn(
            "runs",
            format!(
                "{count} queued, the oldest for {oldest} s, although {} is idle: its log says what it waits for",
                idle.executor_id
            ),
            Some(next.kodo("prove")),
        ));
    } else if waiting > 0 && live.is_empty() {
        findings.push(Finding::warn(
            "runs",
            format!("unfinished, and no worker runs: {}", listed.join("; ")),
            Some(next.task("start")),
        ));
    } else {
        let what = match waiting {
            0 => "none is unfinished".to_owned(),
            _ => listed.join("; "),
        };
        findings.push(Finding::ok("runs", what));
    }
    Ok(findings)
}

fn named(worker: &WorkerSlot) -> String {
    match worker.pid {
        Some(pid) => format!("{} (process {pid})", worker.executor_id),
        None => format!("{} (not on this machine)", worker.executor_id),
    }
}
