//! Where a course plays: the checkout, with databases and ports of its own, so that it can run beside a service in use.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kodo_store::DatabaseConfig;
use tokio::process::Command;

use crate::harness::Databases;
use crate::ports::free_ports;

/// The page, from the root of the checkout.
pub const COURSE: &str = "docs/course.md";

/// The ports that the course names, each as `${NAME:-default}`.
const PORTS: [&str; 6] = [
    "PORT",
    "ADMIN_PORT",
    "CRASH_PORT",
    "CRASH_ADMIN_PORT",
    "TEST_PORT",
    "TEST_ADMIN_PORT",
];

/// What somebody may have set for a service in use and the course does not speak of: it shows the defaults.
const UNSET: &str = "API_TOKEN API_TOKEN_FILE ARTIFACT_STORE BASH_ENV ENV HOST LOG_FORMAT MAX_CONCURRENT_RUNS \
    MAX_CONCURRENT_TOOL_CALLS OC_FIXTURES_DIR OC_MODE PSQLRC RUST_LOG SBX_CGROUP SBX_MIN_ISOLATION SBX_MOCK_DELAY_MS \
    SBX_MODE SBX_PROVIDER SBX_READ_ONLY SBX_SECRETS_DIR TEST_SEED WF_SLEEP_MS";

/// Plain text in one language, whatever the terminal is.
const PLAIN: [(&str, &str); 4] = [
    ("LC_ALL", "C.UTF-8"),
    ("NO_COLOR", "1"),
    ("TERM", "dumb"),
    ("PAGER", "cat"),
];

/// A place to run a course in.
#[derive(Debug)]
pub struct Stage {
    checkout: PathBuf,
    environment: Vec<(String, String)>,
    databases: Option<Databases>,
}

impl Stage {
    /// Databases that nobody else uses on this server (it need not run yet), and ports that are free.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn new(checkout: PathBuf, server: &DatabaseConfig) -> anyhow::Result<Self> {
        let databases = Databases::named(server, "kodo_course");
        let mut environment = databases.environment();
        let ports = PORTS.into_iter().zip(free_ports(PORTS.len())?);
        environment.extend(ports.map(|(name, port)| (name.to_owned(), port.to_string())));
        Ok(Self {
            databases: Some(databases),
            ..Self::bare(checkout, environment)
        })
    }

    /// A folder and some environment, without databases.
    pub fn bare(folder: PathBuf, environment: Vec<(String, String)>) -> Self {
        Self {
            checkout: folder,
            environment,
            databases: None,
        }
    }

    /// A bash that plays here.
    pub(super) fn bash(&self) -> Command {
        let mut command = Command::new("bash");
        command
            .current_dir(&self.checkout)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(PLAIN);
        for name in UNSET.split_whitespace() {
            command.env_remove(name);
        }
        command
    }

    /// What differs from a reader's own terminal, for people.
    pub fn describe(&self) -> String {
        let of = |name: &str| {
            let found = self.environment.iter().find(|(key, _)| key == name);
            found.map_or("-", |(_, value)| value.as_str())
        };
        format!(
            "databases {} and {} on {}:{}, ports {} and {}",
            of("APP_DB_NAME"),
            of("SYS_DB_NAME"),
            of("DB_HOST"),
            of("DB_PORT"),
            of("PORT"),
            of("ADMIN_PORT")
        )
    }

    /// Drops the databases. The server stays: whoever started it has `db:down` for it.
    ///
    /// # Errors
    /// Where the server does not answer or refuses.
    pub async fn clean_up(self) -> anyhow::Result<()> {
        match self.databases {
            Some(databases) => databases.drop().await,
            None => Ok(()),
        }
    }
}

/// The checkout that a folder is in.
///
/// # Errors
/// If it is in none.
pub fn find_checkout(from: &Path) -> anyhow::Result<PathBuf> {
    let is_checkout = |it: &&Path| it.join(COURSE).is_file() && it.join("bin/mise").is_file();
    let found = from.ancestors().find(is_checkout).map(Path::to_path_buf);
    found.with_context(|| {
        format!(
            "{} is not inside a checkout of the repository (no docs/course.md beside a bin/mise here or above): \
             the course runs the repository's own tasks, so clone it and run this there",
            from.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_any_folder_inside_it_and_nowhere_else() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = find_checkout(here).unwrap();
        assert!(root.join("crates/kodo-dev").is_dir());
        let elsewhere = tempfile::tempdir().unwrap();
        let refused = find_checkout(elsewhere.path()).unwrap_err().to_string();
        assert!(refused.contains("is not inside a checkout"), "{refused}");
    }
}
