//! A private cluster: its folder, and starting and stopping the server on it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::binaries::Binaries;
use crate::command::last_lines;
use crate::error::DevDbError;
use crate::identity::Identity;
use crate::postmaster::{self, Postmaster};

/// Recovery of a crashed cluster does every write since the last checkpoint again: seconds, on a slow disk more.
const START: Duration = Duration::from_secs(60);
/// A fast shutdown waits for a checkpoint, on a slow disk for some seconds.
const FAST: Duration = Duration::from_secs(30);
const IMMEDIATE: Duration = Duration::from_secs(10);
/// How long the children of a killed postmaster may take to notice.
const ORPHANS: Duration = Duration::from_secs(10);
/// A log that has grown beyond this is put aside at the next start.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// `<base>/pg/<major>`. One folder per major version: another's server refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    folder: PathBuf,
    major: u32,
}

impl Cluster {
    pub(crate) fn new(base: &Path, major: u32) -> Self {
        Self {
            folder: base.join("pg").join(major.to_string()),
            major,
        }
    }

    /// The clusters below `base`, newest version first.
    pub(crate) fn all_in(base: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(base.join("pg")) else {
            return Vec::new();
        };
        let mut majors: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        majors.sort_unstable_by(|a, b| b.cmp(a));
        majors
            .into_iter()
            .map(|major| Self::new(base, major))
            .collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// Was `initdb` here and did it finish?
    pub(crate) fn exists(&self) -> bool {
        self.folder.join("PG_VERSION").is_file() && self.folder.join("global/pg_control").is_file()
    }

    pub(crate) fn postmaster(&self) -> Postmaster {
        Postmaster::of(&self.folder)
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// The end of the server's log, from byte `from` on, as the end of an error message.
    pub(crate) fn log_tail(&self, from: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(length.saturating_sub(64 * 1024))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read().map(|text| last_lines(text.trim_end(), 12)) {
            Ok(lines) if !lines.is_empty() => {
                format!("; the end of its log, {}:\n{lines}", self.log().display())
            }
            _ => String::new(),
        }
    }

    /// Makes the folder fit for a start: nothing of a dead server may still be at work, or in the way.
    pub(crate) async fn clear(&self) -> Result<(), DevDbError> {
        let pids = postmaster::wait_until_deserted(&self.folder, ORPHANS).await;
        if !pids.is_empty() {
            let pids = pids
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(DevDbError::StillInUse {
                path: self.folder.clone(),
                pids,
            });
        }
        if self.postmaster() == Postmaster::Stale {
            // Postgres believes whatever lives under that number: a corpse that its parent has not buried yet
            // (seconds, or for ever where pid 1 does not reap), or another program that was given the number.
            // Nobody is in the folder, so the file speaks of nobody.
            let file = self.folder.join("postmaster.pid");
            fs::remove_file(&file).map_err(DevDbError::at(&file))?;
        }
        Ok(())
    }

    /// Starts the server; it outlives us, and nothing of ours stays open in it.
    pub(crate) async fn start(
        &self,
        binaries: &Binaries,
        identity: Identity,
        listen: IpAddr,
        port: u16,
    ) -> Result<(), DevDbError> {
        let log = self.log();
        let old = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        if old > LOG_LIMIT {
            fs::rename(&log, log.with_extension("log.1")).map_err(DevDbError::at(&log))?;
        }
        let output = File::options()
            .create(true)
            .append(true)
            // It holds statements that failed, with their values.
            .mode(0o600)
            .open(&log)
            .map_err(DevDbError::at(&log))?;
        identity.give(&log)?;
        let before = output.metadata().map_err(DevDbError::at(&log))?.len();
        // Its output must not be ours: whoever runs us waits until the last copy of our stdout is closed.
        let errors = output.try_clone().map_err(DevDbError::at(&log))?;

        let mut pg_ctl = identity.command(&binaries.program("pg_ctl"));
        pg_ctl
            .args(["start", "--wait", "--silent", "--timeout"])
            .arg(START.as_secs().to_string())
            .arg("--pgdata")
            .arg(&self.folder)
            .arg("--log")
            .arg(&log)
            .arg("--options")
            .arg(server_options(listen, port))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let program = crate::command::name(&pg_ctl);
        let mut child = pg_ctl.spawn().map_err(|source| DevDbError::Spawn {
            program: program.clone(),
            source,
        })?;
        let status = match timeout(START + Duration::from_secs(10), child.wait()).await {
            Ok(status) => Some(status.map_err(|source| DevDbError::Spawn { program, source })?),
            Err(_) => None,
        };
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let log = self.log_tail(before);
        // On a full disk it crashes and starts over for ever: leave nothing of the kind behind.
        if let Postmaster::Alive { pid, .. } = self.postmaster() {
            self.stop(pid).await?;
        }
        Err(DevDbError::Start { log })
    }

    /// Stops the server with process id `pid`: fast, and if that takes too long, at once.
    ///
    /// By signal and not by `pg_ctl`: that trusts whatever the pid file says, and its binaries may be gone by now.
    pub(crate) async fn stop(&self, pid: i32) -> Result<(), DevDbError> {
        for (signal, patience) in [(Signal::INT, FAST), (Signal::QUIT, IMMEDIATE)] {
            postmaster::signal(&self.folder, pid, signal);
            let end = Instant::now() + patience;
            while Instant::now() < end {
                if !matches!(self.postmaster(), Postmaster::Alive { .. }) {
                    return Ok(());
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        let seconds = (FAST + IMMEDIATE).as_secs();
        Err(DevDbError::Stop {
            pid,
            seconds,
            log: self.log_tail(0),
        })
    }
}

/// On the command line, so that they hold whatever is in the cluster's own configuration, and may change at every start.
/// A shell reads them: nothing here needs quotes.
fn server_options(listen: IpAddr, port: u16) -> String {
    [
        format!("-p {port}"),
        format!("-c listen_addresses={listen}"),
        // The usual folder belongs to the system's own Postgres.
        "-c unix_socket_directories=".to_owned(),
        // Tests run in parallel, each with pools of its own.
        "-c max_connections=200".to_owned(),
        // What a crash test proves must be what a real server does.
        "-c fsync=on".to_owned(),
    ]
    .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_listed_newest_first_and_other_files_are_not_clusters() {
        let base = tempfile::tempdir().unwrap();
        for name in ["pg/9", "pg/15", "pg/18", "pg/18.init-4", "pg/.lock"] {
            fs::create_dir_all(base.path().join(name)).unwrap();
        }
        let majors: Vec<u32> = Cluster::all_in(base.path())
            .iter()
            .map(Cluster::major)
            .collect();
        assert_eq!(majors, [18, 15, 9]);
        assert_eq!(Cluster::all_in(&base.path().join("nowhere")), []);
    }

    #[tokio::test]
    async fn a_pid_file_of_another_program_is_cleared_away() {
        let base = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(&base.path().canonicalize().unwrap(), 15);
        fs::create_dir_all(cluster.folder()).unwrap();
        let pid_file = cluster.folder().join("postmaster.pid");
        fs::write(&pid_file, format!("{}\nx\n0\n5\n", std::process::id())).unwrap();
        cluster.clear().await.unwrap();
        assert!(!pid_file.exists());
    }

    #[test]
    fn the_log_of_another_start_is_not_shown() {
        let base = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(base.path(), 15);
        fs::create_dir_all(cluster.folder()).unwrap();
        assert_eq!(cluster.log_tail(0), "");
        fs::write(cluster.log(), "old\nnew\n").unwrap();
        let tail = cluster.log_tail(4);
        assert!(tail.ends_with(":\nnew"), "{tail}");
    }
}
