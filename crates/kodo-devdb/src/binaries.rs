//! Folders with the programs of Postgres, and which of them to use.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command;
use crate::identity::Identity;

/// The oldest major version that the product supports.
pub(crate) const OLDEST: u32 = 15;
/// What a cluster needs; `psql` is not among them.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// A folder with usable programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binaries {
    /// The folder.
    pub(crate) bin: PathBuf,
    /// Such as `15.18`.
    pub(crate) version: String,
    /// Such as 15.
    pub(crate) major: u32,
}

impl Binaries {
    /// What is in `bin`, if it is complete, runs as `identity` and is new enough.
    pub(crate) async fn examine(bin: &Path, identity: Identity) -> Option<Self> {
        if !PROGRAMS.iter().all(|program| bin.join(program).is_file()) {
            return None;
        }
        let mut postgres = identity.command(&bin.join("postgres"));
        postgres.arg("--version");
        let finished = command::run(postgres, Duration::from_secs(20)).await.ok()?;
        let (version, major) = parse_version(&finished.stdout)?;
        (finished.success() && major >= OLDEST).then(|| Self {
            bin: bin.to_owned(),
            version,
            major,
        })
    }

    /// The path of one of the programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// All usable ones on the machine, best first: `$PG_BIN`, then by version, then `initdb` on the path.
pub(crate) async fn on_machine(identity: Identity) -> Vec<Binaries> {
    let mut found = Vec::new();
    if let Some(given) = variable("PG_BIN").filter(|value| !value.is_empty()) {
        found.extend(Binaries::examine(&absolute(Path::new(&given)), identity).await);
    }
    let mut packaged = Vec::new();
    for bin in packaged_folders() {
        packaged.extend(Binaries::examine(&bin, identity).await);
    }
    packaged.sort_by_key(|binaries| Reverse(binaries.major));
    found.append(&mut packaged);
    if let Some(bin) = on_path() {
        found.extend(Binaries::examine(&bin, identity).await);
    }
    found
}

/// The ones to use among `candidates`: those of a version that has a cluster already, so that its data is not lost from
/// sight when other binaries appear on the machine; else the first.
pub(crate) fn choose(
    candidates: &[Binaries],
    has_cluster: impl Fn(u32) -> bool,
) -> Option<&Binaries> {
    candidates
        .iter()
        .find(|binaries| has_cluster(binaries.major))
        .or_else(|| candidates.first())
}

/// Where packagers put them, as folder, prefix of a name in it, and what follows.
const PACKAGED: [(&str, &str, &str); 9] = [
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
    // Homebrew, by processor and system
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    // Postgres.app
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

fn packaged_folders() -> Vec<PathBuf> {
    PACKAGED
        .iter()
        .flat_map(|(folder, prefix, rest)| folders_like(Path::new(folder), prefix, rest))
        .collect()
}

/// `folder/<prefix>*/rest`, those that exist.
fn folders_like(folder: &Path, prefix: &str, rest: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(rest))
        .filter(|path| path.is_dir())
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads the environment"
)]
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
}

/// The folder of the `initdb` on `PATH`, links resolved: its neighbours need not be linked, too.
fn on_path() -> Option<PathBuf> {
    let path = variable("PATH")?;
    let initdb = env::split_paths(&path)
        .map(|folder| folder.join("initdb"))
        .find(|file| file.is_file())?;
    Some(initdb.canonicalize().ok()?.parent()?.to_owned())
}

/// The programs run from another folder than ours.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; a beta says `19beta1`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text
        .trim()
        .strip_prefix("postgres (PostgreSQL) ")?
        .split_whitespace()
        .next()?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    Some((version.to_owned(), version[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(bin: &str, major: u32) -> Binaries {
        Binaries {
            bin: bin.into(),
            version: major.to_string(),
            major,
        }
    }

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some(("15.18".to_owned(), 15)));
        assert_eq!(
            parse_version("postgres (PostgreSQL) 19beta1"),
            Some(("19beta1".to_owned(), 19))
        );
        assert_eq!(
            parse_version("postgres (PostgreSQL) 9.6.24").map(|(_, major)| major),
            Some(9)
        );
        assert_eq!(parse_version("error while loading shared libraries"), None);
    }

    #[test]
    fn a_version_that_has_a_cluster_goes_before_a_better_one_that_has_none() {
        let candidates = [binaries("/a", 18), binaries("/b", 15)];
        assert_eq!(
            choose(&candidates, |major| major == 15).unwrap().bin,
            Path::new("/b")
        );
        assert_eq!(choose(&candidates, |_| false).unwrap().bin, Path::new("/a"));
        assert_eq!(choose(&[], |_| true), None);
    }

    #[tokio::test]
    async fn an_incomplete_folder_and_a_program_that_does_not_run_are_no_binaries() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            Binaries::examine(folder.path(), Identity::Caller).await,
            None
        );
        for program in PROGRAMS {
            fs::write(folder.path().join(program), "not a program").unwrap();
        }
        assert_eq!(
            Binaries::examine(folder.path(), Identity::Caller).await,
            None
        );
    }
}
