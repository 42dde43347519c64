//! Settings that cannot be used, each by itself.

use super::finding::Finding;
use super::next::Next;
use crate::commands::db::provider;
use crate::settings::{Refusal, Settings};

const CHECK: &str = "configuration";

/// One finding a mistake; one where there is none.
pub(crate) fn check(settings: Option<&Settings>, refused: &[Refusal], next: &Next) -> Vec<Finding> {
    let mut findings: Vec<Finding> = refused
        .iter()
        .map(|refusal| {
            let reason = format!("{}; the checks go on with the default", refusal.reason);
            let next = if refusal.reason.starts_with("--") {
                // By a flag of this very call.
                next.kodo("--help")
            } else {
                format!("unset {}", refusal.variable)
            };
            Finding::problem(CHECK, reason, next)
        })
        .collect();
    if let Err(error) = provider() {
        findings.push(Finding::problem(
            CHECK,
            format!("{error:#}"),
            "unset DB_PROVIDER".to_owned(),
        ));
    }
    if let Some(settings) = settings
        && settings.port != 0
        && settings.port == settings.admin_port
    {
        let port = settings.port;
        let other = if port == u16::MAX { port - 1 } else { port + 1 };
        findings.push(Finding::problem(
            CHECK,
            format!("PORT and ADMIN_PORT are both {port}: a service cannot listen twice there"),
            next.task_with(&[("ADMIN_PORT", other.to_string())], "start"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "every setting can be used"));
    }
    findings
}
