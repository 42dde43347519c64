//! Who keeps a start waiting: open transactions and locks of others, and a launch lock that was left behind.

use kodo_engine::{Inspector, LaunchLock};
use kodo_store::{DatabaseConfig, Store, waits_for};

use super::examination::Examination;
use super::finding::Finding;

/// Looks at both databases.
pub(super) async fn check(exam: &Examination, store: &Store) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (app, system) = (&exam.settings.app, &exam.settings.system);
    for config in [app, system] {
        if config == system && app == system && !findings.is_empty() {
            break;
        }
        let blockers = config.blockers().await.unwrap_or_default();
        if let Some(waits) = waits_for(&blockers) {
            let ends: Vec<String> = blockers
                .iter()
                .map(|blocker| format!("SELECT pg_terminate_backend({})", blocker.pid))
                .collect();
            findings.push(Finding::problem(
                "blocked",
                format!("a session of kodo in database {} {waits}", config.database),
                exam.next.sql("postgres", &ends),
            ));
        }
    }
    if let Some(lock) = left_behind(system, store).await {
        findings.push(Finding::problem(
            "launch lock",
            format!(
                "{lock} has the lock under which a worker is launched, and no service lives: a pooler may have kept it; \
                 the next start waits for it"
            ),
            exam.next.kodo("doctor --fix"),
        ));
    }
    findings
}

/// The launch lock, if some session holds it while no worker lives: a worker has its slot before it launches.
pub(super) async fn left_behind(system: &DatabaseConfig, store: &Store) -> Option<LaunchLock> {
    let instance = store.instance().await.ok()?;
    let mut inspector = Inspector::connect(system).await.ok()?;
    let lock = inspector.launch_lock(&instance).await.ok()??;
    let workers = inspector.workers(store, &instance).await.ok()?;
    (!workers.iter().any(|worker| worker.held)).then_some(lock)
}
