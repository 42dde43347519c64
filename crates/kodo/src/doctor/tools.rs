//! The programs that tasks and people use. The service itself needs none of them.

use std::path::{Path, PathBuf};

use super::examination::Examination;
use super::finding::Finding;
use crate::environment;

/// Where packagers put `psql` when they leave it off the path: a folder, and what follows each entry of it.
const PACKAGED_PSQL: [(&str, &str); 2] = [
    ("/usr/lib/postgresql", "bin/psql"),
    ("/usr/local/pgsql", "psql"),
];

/// Looks for each, without running any.
pub(crate) fn check(exam: &Examination) -> impl FnOnce() -> Vec<Finding> + Send + use<> {
    let data = exam.devdb.data_dir.clone();
    move || {
        let cargo = on_path("cargo").or_else(|| {
            let home = environment::variable("CARGO_HOME").map(PathBuf::from);
            let home =
                home.or_else(|| Some(PathBuf::from(environment::variable("HOME")?).join(".cargo")));
            Some(home?.join("bin/cargo")).filter(|file| file.is_file())
        });
        // scripts/db fetches one below the data folder where there is none.
        let psql = on_path("psql")
            .or_else(packaged_psql)
            .or_else(|| Some(data.join("pg-pip")).filter(|it| it.is_dir()));
        vec![
            tool(
                "mise",
                on_path("mise").or_else(fetched_mise),
                "bin/mise fetches one",
                "bin/mise --version",
            ),
            tool(
                "cargo",
                cargo,
                "nothing can be built",
                "bin/mise run rust:ensure",
            ),
            tool(
                "psql",
                psql,
                "scripts/db fetches one",
                "scripts/db/psql-app.sh --version",
            ),
        ]
    }
}

fn tool(name: &'static str, found: Option<PathBuf>, without: &str, next: &str) -> Finding {
    match found {
        Some(path) => Finding::ok("tools", format!("{name}: {}", path.display())),
        // Not a warning: whoever runs the service needs none of them.
        None => Finding::ok("tools", format!("{name}: not here; {without}")).then(next.to_owned()),
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = environment::variable("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The one that `bin/mise` has fetched: it is on the path of tasks alone.
fn fetched_mise() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(environment::variable("HOME")?).join(".cache"));
    let cache = environment::variable("XDG_CACHE_HOME").map(PathBuf::from);
    let versions = cache
        .or_else(home)?
        .join("sisu-kodo/mise")
        .read_dir()
        .ok()?;
    let mut files = versions.filter_map(|entry| Some(entry.ok()?.path().join("mise")));
    files.find(|file| file.is_file())
}

fn packaged_psql() -> Option<PathBuf> {
    PACKAGED_PSQL.iter().find_map(|(folder, rest)| {
        let entries = std::fs::read_dir(Path::new(folder)).ok()?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path().join(rest)))
            .find(|file| file.is_file())
    })
}
