//! What killed processes left behind: in the data folder, and on the server.

use std::path::Path;

use kodo_store::Store;

use super::examination::Examination;
use super::finding::Finding;
use super::next::quoted;
use crate::devdb::{Leftover, leftovers};

/// Databases of tests and demonstrations: `PREFIX_PID_…`.
const PREFIXES: [&str; 3] = ["kodo_it_draft_", "kodo_it_", "kodo_demo_"];

/// The data folder: clusters half made, pid files of servers that are gone.
pub(crate) fn folders(exam: &Examination) -> impl FnOnce() -> Vec<Finding> + Send + use<> {
    let data = exam.devdb.data_dir.clone();
    let next = exam.next.clone();
    move || {
        let mut findings: Vec<Finding> = leftovers(&data)
            .into_iter()
            .map(|leftover| match leftover {
                Leftover::StalePid(file) => Finding::warn(
                    "leftovers",
                    format!("{} names a process that is no Postgres of this cluster (killed); the next start clears it away", file.display()),
                    Some(next.task("db:up")),
                ),
                Leftover::HalfMade(folder) => Finding::warn(
                    "leftovers",
                    format!("{} is a cluster that was not finished; the next start makes it anew", folder.display()),
                    Some(next.task("db:up")),
                ),
                Leftover::SetAside(folder) => Finding::warn(
                    "leftovers",
                    format!("{} was put aside as incomplete; remove it when nothing in it is missed", folder.display()),
                    Some(format!("rm -r {}", quoted(&folder.to_string_lossy()))),
                ),
            })
            .collect();
        if findings.is_empty() {
            findings.push(Finding::ok(
                "leftovers",
                format!("none in {}", data.display()),
            ));
        }
        findings
    }
}

/// The server: databases of tests and demonstrations that were killed.
pub(crate) async fn databases(exam: &Examination, store: &Store) -> Vec<Finding> {
    const CHECK: &str = "left databases";
    let host = &exam.settings.app.host;
    // A path is a folder of sockets.
    if !host.starts_with('/') && !kodo_contract::is_loopback(host) {
        let why = "the server is on another machine: whose databases belong to dead processes cannot be told";
        return vec![Finding::skipped(CHECK, why)];
    }
    let names = match store.databases_with(&PREFIXES).await {
        Ok(names) => names,
        Err(error) => return vec![Finding::skipped(CHECK, error.to_string())],
    };
    let left: Vec<String> = names
        .into_iter()
        .filter(|name| owner(name).is_some_and(is_dead))
        .collect();
    if left.is_empty() {
        return vec![Finding::ok(
            CHECK,
            "none of tests or demonstrations that were killed",
        )];
    }
    let drops: Vec<String> = left
        .iter()
        .map(|name| {
            format!(
                "DROP DATABASE \"{}\" WITH (FORCE)",
                name.replace('"', "\"\"")
            )
        })
        .collect();
    vec![Finding::warn(
        CHECK,
        format!(
            "{} of tests or demonstrations that were killed: {}",
            left.len(),
            left.join(", ")
        ),
        Some(exam.next.sql("postgres", &drops)),
    )]
}

/// The process that made a database. Templates have a time instead, with a word before it.
fn owner(name: &str) -> Option<u32> {
    let rest = PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    rest.split('_').next()?.parse().ok()
}

fn is_dead(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_name_the_process_that_made_them() {
        assert_eq!(owner("kodo_it_12_flow_one"), Some(12));
        assert_eq!(owner("kodo_it_draft_13"), Some(13));
        assert_eq!(owner("kodo_demo_14_app"), Some(14));
        assert_eq!(owner("kodo_it_template_one_1700000000000"), None);
        assert_eq!(owner("app_local"), None);
    }
}
