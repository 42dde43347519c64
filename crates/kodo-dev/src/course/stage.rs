//! Where a course plays: the checkout, with databases and ports of its own, so that it can run beside a service in use.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::harness::Databases;
use kodo_store::DatabaseConfig;
use tokio::process::Command;

use crate::course::CourseError;

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

/// Where free ports are looked for: below the range that systems take for outgoing connections, since a port that is
/// found free is used minutes later.
const PORT_RANGE: std::ops::Range<u16> = 14_000..30_000;

/// What somebody may have set for a service in use and the course does not speak of: it shows the defaults.
const UNSET: [&str; 22] = [
    "API_TOKEN",
    "API_TOKEN_FILE",
    "ARTIFACT_STORE",
    "BASH_ENV",
    "ENV",
    "HOST",
    "LOG_FORMAT",
    "MAX_CONCURRENT_RUNS",
    "MAX_CONCURRENT_TOOL_CALLS",
    "OC_FIXTURES_DIR",
    "OC_MODE",
    "PSQLRC",
    "RUST_LOG",
    "SBX_CGROUP",
    "SBX_MIN_ISOLATION",
    "SBX_MOCK_DELAY_MS",
    "SBX_MODE",
    "SBX_PROVIDER",
    "SBX_READ_ONLY",
    "SBX_SECRETS_DIR",
    "TEST_SEED",
    "WF_SLEEP_MS",
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
    pub fn new(checkout: PathBuf, server: &DatabaseConfig) -> Result<Self, CourseError> {
        let databases = Databases::named(server, "kodo_course");
        let mut environment = databases.environment();
        let ports = free_ports(PORTS.len())?;
        environment.extend(
            PORTS
                .iter()
                .zip(ports)
                .map(|(name, port)| ((*name).to_owned(), port.to_string())),
        );
        Ok(Self {
            databases: Some(databases),
            ..Self::bare(checkout, environment)
        })
    }

    /// A folder and some environment, without databases.
    pub fn bare(folder: PathBuf, mut environment: Vec<(String, String)>) -> Self {
        // Plain text in one language, whatever the terminal is.
        for (name, value) in [
            ("LC_ALL", "C.UTF-8"),
            ("NO_COLOR", "1"),
            ("TERM", "dumb"),
            ("PAGER", "cat"),
        ] {
            environment.push((name.to_owned(), value.to_owned()));
        }
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
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        for name in UNSET {
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
/// [`CourseError::NoCheckout`].
pub fn find_checkout(from: &Path) -> Result<PathBuf, CourseError> {
    from.ancestors()
        .find(|folder| folder.join(COURSE).is_file() && folder.join("bin/mise").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| CourseError::NoCheckout(from.to_path_buf()))
}

/// Ports that nobody listens on now, each one another. Where the search begins differs from process to process.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let size = u32::from(PORT_RANGE.end - PORT_RANGE.start);
    let begin = std::process::id().wrapping_mul(37) % size;
    let mut held = Vec::new();
    for offset in 0..size {
        if held.len() == count {
            break;
        }
        let within = u16::try_from((begin + offset) % size).unwrap_or_default();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT_RANGE.start + within)) {
            held.push(listener);
        }
    }
    if held.len() < count {
        return Err(std::io::Error::other(format!(
            "fewer than {count} ports are free in {PORT_RANGE:?}"
        )));
    }
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_taken() {
        let ports = free_ports(6).unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 6);
        assert!(ports.iter().all(|port| PORT_RANGE.contains(port)));
    }

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
