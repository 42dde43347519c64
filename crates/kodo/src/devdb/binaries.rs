//! Finds the programs of Postgres on this machine.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command;
use super::identity::Identity;
use crate::environment;

/// The oldest major version that the product supports.
pub(super) const OLDEST: u32 = 15;

/// What a cluster needs; `psql` is not among them.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Where packagers put them: a folder, how names in it begin, and what follows.
const PACKAGED: [(&str, &str, &str); 5] = [
    // Debian, Ubuntu
    ("/usr/lib/postgresql", "", "bin"),
    // postgresql.org's RPMs
    ("/usr", "pgsql-", "bin"),
    // Alpine
    ("/usr/libexec", "postgresql", ""),
    // openSUSE
    ("/usr/lib", "postgresql1", "bin"),
    // from source
    ("/usr/local", "pgsql", "bin"),
];

/// A folder with usable programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    /// The folder.
    pub(super) bin: PathBuf,
    /// Such as `15.18`.
    pub(super) version: String,
    /// Such as 15.
    pub(super) major: u32,
}

impl Binaries {
    /// The programs in `bin`, if they are complete, run as `identity` and are new enough.
    pub(super) async fn examine(bin: &Path, identity: Identity) -> Option<Self> {
        if !PROGRAMS.iter().all(|program| bin.join(program).is_file()) {
            return None;
        }
        let mut postgres = identity.command(&bin.join("postgres"));
        postgres.arg("--version");
        let printed = command::run(postgres, Duration::from_secs(20)).await.ok()?;
        let (version, major) = parse_version(&printed)?;
        (major >= OLDEST).then(|| Self {
            bin: bin.to_owned(),
            version,
            major,
        })
    }
}

/// All usable ones on the machine, best first: `$PG_BIN`, then by version, then `initdb` on the path.
pub(super) async fn on_machine(identity: Identity) -> Vec<Binaries> {
    let mut packaged = Vec::new();
    for (folder, prefix, rest) in PACKAGED {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                packaged.extend(Binaries::examine(&entry.path().join(rest), identity).await);
            }
        }
    }
    packaged.sort_by_key(|binaries| Reverse(binaries.major));
    let given = environment::variable("PG_BIN").filter(|value| !value.is_empty());
    // Links resolved: the programs run in another folder than ours, and the neighbours of a linked initdb need not be linked.
    let given = given.and_then(|bin| PathBuf::from(bin).canonicalize().ok());
    let mut found = Vec::new();
    if let Some(bin) = given {
        found.extend(Binaries::examine(&bin, identity).await);
    }
    found.extend(packaged);
    if let Some(bin) = on_path() {
        found.extend(Binaries::examine(&bin, identity).await);
    }
    found
}

/// The folder of the `initdb` on `PATH`.
fn on_path() -> Option<PathBuf> {
    let path = environment::variable("PATH")?;
    let initdb = std::env::split_paths(&path)
        .map(|folder| folder.join("initdb"))
        .find(|file| file.is_file())?;
    Some(initdb.canonicalize().ok()?.parent()?.to_owned())
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; a beta says `19beta1`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.trim().strip_prefix("postgres (PostgreSQL) ")?;
    let version = version.split_whitespace().next()?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((version.to_owned(), major.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some(("15.18".to_owned(), 15)));
        let beta = parse_version("postgres (PostgreSQL) 19beta1");
        assert_eq!(beta, Some(("19beta1".to_owned(), 19)));
        assert_eq!(parse_version("error while loading shared libraries"), None);
    }

    #[tokio::test]
    async fn an_incomplete_folder_and_a_program_that_does_not_run_are_no_binaries() {
        let folder = tempfile::tempdir().unwrap();
        let examine = || Binaries::examine(folder.path(), Identity::Caller);
        assert_eq!(examine().await, None);
        for program in PROGRAMS {
            fs::write(folder.path().join(program), "not a program").unwrap();
        }
        assert_eq!(examine().await, None);
    }
}
