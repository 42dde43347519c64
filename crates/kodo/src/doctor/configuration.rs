//! Settings that cannot be used, each by itself.

use super::finding::Finding;
use super::next::Next;
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
    if let Some(port) = settings.and_then(|settings| settings.api.port_of_both()) {
        let other = if port == u16::MAX { port - 1 } else { port + 1 };
        findings.push(Finding::problem(
            CHECK,
            format!("PORT={port} and ADMIN_PORT={port} are one port, and each API needs its own"),
            next.task_with(&[("ADMIN_PORT", other.to_string())], "start"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "every setting can be used"));
    }
    findings
}
