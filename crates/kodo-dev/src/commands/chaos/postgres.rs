//! A Postgres that belongs to the soak alone, so that it can be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use kodo_dev::ports::free_ports;
use kodo_store::DatabaseConfig;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::Connection;
use tokio::process::Command;

use crate::server::Server;

/// Recovery after a crash writes everything since the last checkpoint again; a busy disk takes its time.
const UP_TIMEOUT: Duration = Duration::from_secs(150);

/// Tries to bring the server up. One can come too early: children of a killed postmaster may be at work still.
const UP_TRIES: u32 = 3;

/// A private cluster, by `kodo db up`: durable, on a port of its own, started again on the same data.
pub(super) struct Postgres {
    /// Where it listens.
    pub(super) config: DatabaseConfig,
    /// The `kodo` binary.
    pub(super) program: PathBuf,
    /// Its data and its log, once it was started; not below `folder` where Postgres runs as another user.
    pub(super) data: PathBuf,
    folder: PathBuf,
    binaries: Option<PathBuf>,
}

impl Postgres {
    /// A cluster for `folder`, which is not there yet. Its programs are those of the server that others use here, if
    /// it is on this machine.
    pub(super) async fn new(
        program: PathBuf,
        folder: &Path,
        shared: &Server,
    ) -> anyhow::Result<Self> {
        let mut config = shared.database("postgres");
        let binaries = binaries_of(&config).await;
        config.host = "127.0.0.1".to_owned();
        config.port = free_ports(1)?[0];
        config.ssl_mode = kodo_store::SslMode::default();
        Ok(Self {
            config,
            program,
            data: folder.to_owned(),
            folder: folder.to_owned(),
            binaries,
        })
    }

    /// Starts it for the first time.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let said = self.db("up").await?;
        let data = said.trim_end().rsplit_once("data in ");
        let data = data.with_context(|| format!("kodo db up does not say where: {said}"))?;
        self.data = PathBuf::from(data.1);
        Ok(())
    }

    /// Starts it again, on what the last one left.
    pub(super) async fn up(&self) -> anyhow::Result<()> {
        for _ in 1..UP_TRIES {
            if self.db("up").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.db("up").await.map(drop)
    }

    /// Stops it in good order, also one whose start was interrupted.
    pub(super) async fn down(&self) -> anyhow::Result<()> {
        self.db("down").await.map(drop)
    }

    /// Signals the postmaster: SIGQUIT, SIGKILL or SIGINT. It may take a moment to end.
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let file = self.data.join("postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        let pid = pid.and_then(Pid::from_raw);
        kill_process(pid.context("postmaster.pid names no process")?, signal)
            .context("cannot signal the postmaster")
    }

    /// Cuts every session of the services.
    pub(super) async fn disconnect(&self) -> anyhow::Result<()> {
        let mut admin = self.config.connect("chaos").await?;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND application_name LIKE 'kodo-%' AND application_name <> 'kodo-harness'",
        )
        .execute(&mut admin)
        .await?;
        Ok(admin.close().await?)
    }

    /// Removes the data. The folder that it was made for is the caller's.
    pub(super) fn remove(&self) {
        // `/var/tmp/sisu-kodo-pg-HASH/pg/15`, where the hash is that of our folder and so nobody else's.
        let elsewhere = self.data.ancestors().nth(2).filter(|base| {
            base.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("sisu-kodo-pg-"))
        });
        let _ = std::fs::remove_dir_all(elsewhere.unwrap_or(&self.data));
    }

    async fn db(&self, verb: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command
            .args(["db", verb])
            .env("DB_HOST", &self.config.host)
            .env("DB_PORT", self.config.port.to_string())
            .env("DB_USER", &self.config.user)
            .env("DB_PASSWORD", &self.config.password)
            .env("DB_PROVIDER", "auto")
            .env("KODO_DATA_DIR", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(binaries) = &self.binaries {
            command.env("PG_BIN", binaries);
        }
        let output = tokio::time::timeout(UP_TIMEOUT, command.output()).await;
        let output = output.with_context(|| format!("kodo db {verb} took over {UP_TIMEOUT:?}"))?;
        let output = output.context("kodo db")?;
        ensure!(
            output.status.success(),
            "kodo db {verb}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Where a server's programs are: the first word of its `postmaster.opts`. Saves a search, or a fetch where `db:up` has
/// fetched them.
async fn binaries_of(server: &DatabaseConfig) -> Option<PathBuf> {
    let mut connection = server.connect("chaos").await.ok()?;
    let options = sqlx::query_scalar("SELECT pg_read_file('postmaster.opts')");
    let options: String = options.fetch_one(&mut connection).await.ok()?;
    let folder = Path::new(options.split_whitespace().next()?).parent()?;
    folder.join("initdb").exists().then(|| folder.to_owned())
}
