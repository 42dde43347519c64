//! The engine's rows: what is unfinished, and whether anybody works on it.

use kodo_engine::{InspectError, Inspector, UnfinishedWork, WorkerSlot};
use kodo_store::{Store, StoreError};

use super::examination::Examination;
use super::finding::Finding;

/// A run that is queued for longer while a worker is idle should have begun: a sweep comes every two seconds.
const OVERDUE_SECONDS: i64 = 10;

/// Looks at workflows, workers and runs.
pub(crate) async fn check(exam: &Examination, store: &Store) -> Vec<Finding> {
    let instance = match store.instance().await {
        Ok(instance) => instance,
        Err(error) => {
            let why = match error {
                StoreError::Unavailable(_) => "the product schema is not migrated".to_owned(),
                other => other.to_string(),
            };
            return Finding::all_skipped(&["engine", "workers", "runs"], &why);
        }
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
    match look(exam, store, &instance).await {
        Ok(findings) => findings,
        Err(InspectError::NotInitialised) => vec![
            Finding::warn(
                "engine",
                format!(
                    "database {} has no schema dbos, and workflow list shows nothing: the service was not started once",
                    exam.settings.system.database
                ),
                Some(exam.next.task("start")),
            ),
            Finding::skipped("workers", "there is no system database to work on"),
            Finding::skipped("runs", "there is no system database to compare them with"),
        ],
        Err(error) => vec![
            Finding::problem(
                "engine",
                format!(
                    "the system database {} cannot be read: {error}",
                    exam.settings.system.database
                ),
                exam.next.kodo("workflow list"),
            ),
            Finding::skipped("workers", "the system database cannot be read"),
            Finding::skipped("runs", "the system database cannot be read"),
        ],
    }
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
    } else if let Some(warning) = schema.warning() {
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
