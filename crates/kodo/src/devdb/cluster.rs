//! A private cluster: its folder, and starting and stopping the server on it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::binaries::Binaries;
use super::command::last_lines;
use super::identity::Identity;
use super::places::{Places, unusable};
use super::postmaster::{self, Postmaster};

/// Recovery of a crashed cluster repeats every write since the last checkpoint: seconds, on a slow disk more.
const START: Duration = Duration::from_secs(60);
/// A fast shutdown waits for a checkpoint, on a slow disk for some seconds.
const FAST: Duration = Duration::from_secs(30);
const IMMEDIATE: Duration = Duration::from_secs(10);
/// How long the children of a killed postmaster may take to notice.
const ORPHANS: Duration = Duration::from_secs(10);
/// A log that has grown beyond this is put aside at the next start.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// `<base>/pg/<major>`. One folder per major version: another version's server refuses it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

impl Cluster {
    pub(super) fn new(base: &Path, major: u32) -> Self {
        Self {
            folder: base.join("pg").join(major.to_string()),
            major,
        }
    }

    /// Every cluster, whoever its server runs as; in each place the newest version first.
    pub(super) fn all(places: &Places) -> Vec<Self> {
        let folders = places.cluster_folders();
        folders
            .iter()
            .flat_map(|folder| Self::all_in(folder))
            .collect()
    }

    /// The clusters in `folder`, newest version first.
    fn all_in(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let majors = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut majors: Vec<u32> = majors.collect();
        majors.sort_unstable_by(|a, b| b.cmp(a));
        let cluster = |major: u32| Self {
            folder: folder.join(major.to_string()),
            major,
        };
        majors.into_iter().map(cluster).collect()
    }

    /// Whether `initdb` ran here to its end.
    pub(super) fn exists(&self) -> bool {
        self.folder.join("PG_VERSION").is_file() && self.folder.join("global/pg_control").is_file()
    }

    pub(super) fn postmaster(&self) -> Postmaster {
        Postmaster::of(&self.folder)
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// The end of the server's log, from byte `from` on, to be appended to an error message.
    pub(super) fn log_tail(&self, from: u64) -> String {
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

    /// Makes the folder fit for a start: waits for the children of a dead server, and removes its pid file.
    ///
    /// # Errors
    /// If processes of a dead server stay.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        let pids = postmaster::wait_until_deserted(&self.folder, ORPHANS).await;
        if !pids.is_empty() {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            bail!(
                "processes of a dead Postgres still use {}: {}; wait for them or end them, then try again",
                self.folder.display(),
                pids.join(", ")
            );
        }
        if self.postmaster() == Postmaster::Stale {
            // Postgres would believe any living process of that number: one that its parent has not reaped yet, or another
            // program that was given the number. No process of Postgres is in the folder, so the file is out of date.
            let file = self.folder.join("postmaster.pid");
            fs::remove_file(&file).with_context(|| unusable(&file))?;
        }
        Ok(())
    }

    /// Starts the server. It outlives this process, and holds none of its open files.
    ///
    /// # Errors
    /// If it does not start, with the end of its log.
    pub(super) async fn start(
        &self,
        binaries: &Binaries,
        identity: Identity,
        listen: IpAddr,
        port: u16,
    ) -> anyhow::Result<()> {
        let log = self.log();
        let context = || unusable(&log);
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
            fs::rename(&log, log.with_extension("log.1")).with_context(context)?;
        }
        let output = File::options()
            .create(true)
            .append(true)
            // It holds statements that failed, with their values.
            .mode(0o600)
            .open(&log)
            .with_context(context)?;
        identity.give(&log).with_context(context)?;
        let before = output.metadata()?.len();
        // Its output must not be ours: whoever runs us waits until the last copy of our stdout is closed.
        let errors = output.try_clone()?;
        let mut pg_ctl = identity.command(&binaries.bin.join("pg_ctl"));
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
        let mut child = pg_ctl.spawn().context("cannot run pg_ctl")?;
        let ended = timeout(START + Duration::from_secs(10), child.wait()).await;
        if let Ok(status) = ended
            && status?.success()
        {
            return Ok(());
        }
        let log = self.log_tail(before);
        // On a full disk it crashes and starts again for ever.
        if let Postmaster::Alive { pid, .. } = self.postmaster() {
            self.stop(pid).await?;
        }
        bail!("Postgres did not start{log}")
    }

    /// Stops the server with process id `pid`: by a fast shutdown, and if that takes too long, by an immediate one.
    ///
    /// By signal and not by `pg_ctl`, which trusts the pid file, and whose binaries may be gone by now.
    ///
    /// # Errors
    /// If it does not stop.
    pub(super) async fn stop(&self, pid: i32) -> anyhow::Result<()> {
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
        bail!(
            "Postgres (process {pid}) did not stop within {} s{}",
            (FAST + IMMEDIATE).as_secs(),
            self.log_tail(0)
        )
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
        for name in ["9", "15", "18", "18.init-4", ".lock"] {
            fs::create_dir_all(base.path().join(name)).unwrap();
        }
        let clusters = Cluster::all_in(base.path());
        let majors: Vec<u32> = clusters.iter().map(|it| it.major).collect();
        assert_eq!(majors, [18, 15, 9]);
        assert_eq!(Cluster::all_in(&base.path().join("nowhere")), []);
    }

    #[tokio::test]
    async fn a_pid_file_of_another_program_is_cleared_away() {
        let base = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(&base.path().canonicalize().unwrap(), 15);
        fs::create_dir_all(&cluster.folder).unwrap();
        let pid_file = cluster.folder.join("postmaster.pid");
        fs::write(&pid_file, format!("{}\nx\n0\n5\n", std::process::id())).unwrap();
        cluster.clear().await.unwrap();
        assert!(!pid_file.exists());
    }

    #[test]
    fn the_log_of_another_start_is_not_shown() {
        let base = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(base.path(), 15);
        fs::create_dir_all(&cluster.folder).unwrap();
        assert_eq!(cluster.log_tail(0), "");
        fs::write(cluster.log(), "old\nnew\n").unwrap();
        let tail = cluster.log_tail(4);
        assert!(tail.ends_with(":\nnew"), "{tail}");
    }
}
