//! Settings that cannot be used, each by itself.

use super::finding::Finding;
use super::next::Next;
use crate::settings::{Refusal, Settings};

const CHECK: &str = "configuration";

/// Whether a setting says which server or database it is. The default in its place is another one, about which nobody has
/// asked.
pub(crate) fn is_of_database(refusal: &Refusal) -> bool {
    let name = refusal.variable.as_str();
    matches!(
        name,
        "DB_HOST"
            | "DB_PORT"
            | "DB_USER"
            | "DB_PASSWORD"
            | "DB_SSLMODE"
            | "APP_DB_NAME"
            | "SYS_DB_NAME"
    )
}

/// One finding a mistake; one where there is none.
pub(crate) fn check(settings: Option<&Settings>, refused: &[Refusal], next: &Next) -> Vec<Finding> {
    let mut findings: Vec<Finding> = refused
        .iter()
        .map(|refusal| {
            let of_database = is_of_database(refusal);
            let reason = match of_database {
                true => format!("{}; no database is looked at", refusal.reason),
                false => format!("{}; the checks go on with the default", refusal.reason),
            };
            let next = if refusal.reason.starts_with("--") {
                // By a flag of this very call.
                next.kodo("--help")
            } else if of_database {
                // Without the variable, the next look would be at another server.
                next.kodo("serve --help")
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
