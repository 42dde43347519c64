//! A Postgres that belongs to the soak alone, so that it can be killed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kodo_store::DatabaseConfig;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::Connection;
use tokio::process::Command;

/// Recovery after a crash writes everything since the last checkpoint again; a busy disk takes its time.
const UP_TIMEOUT: Duration = Duration::from_secs(150);

/// Tries to bring the server up. One can come too early: children of a killed postmaster may be at work still.
const UP_TRIES: u32 = 3;

/// Below the range that systems choose ports of outgoing connections from: while the server is down, nobody
/// is given its port by chance.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A private cluster, by `kodo db up`: durable, on a port of its own, started again on the same data.
pub(crate) struct Postgres {
    /// Where it listens.
    pub(crate) config: DatabaseConfig,
    program: PathBuf,
    folder: PathBuf,
    binaries: Option<PathBuf>,
    /// The cluster; not below `folder` where Postgres runs as another user.
    data: PathBuf,
}

impl Postgres {
    /// Makes a cluster for `folder` and starts it.
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut postgres = Self {
            config: DatabaseConfig {
                host: "127.0.0.1".to_owned(),
                port: free_port()?,
                user: "postgres".to_owned(),
                password: "postgres".to_owned(),
                database: "postgres".to_owned(),
                ssl_mode: kodo_store::SslMode::default(),
            },
            program: program.to_owned(),
            folder: folder.to_owned(),
            binaries: binaries_of_shared_server().await,
            data: PathBuf::new(),
        };
        let said = postgres.db("up").await?;
        let (_, data) = said
            .trim_end()
            .rsplit_once("data in ")
            .with_context(|| format!("kodo db up does not say where its data is: {said}"))?;
        postgres.data = PathBuf::from(data);
        Ok(postgres)
    }

    /// Starts it again, on what the last one left.
    pub(crate) async fn up(&self) -> anyhow::Result<()> {
        for attempt in 1.. {
            match self.db("up").await {
                Err(error) if attempt == UP_TRIES => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                Ok(_) => break,
            }
        }
        Ok(())
    }

    /// Stops it in good order.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        self.db("down").await.map(drop)
    }

    /// Stops whatever was started for `folder`: a start that was interrupted may have got that far.
    pub(crate) async fn stop_in(program: &Path, folder: &Path) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command
            .args(["db", "down"])
            .env("KODO_DATA_DIR", folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let ended = command.status().await.context("kodo db down")?;
        ensure!(ended.success(), "kodo db down: {ended}");
        Ok(())
    }

    /// Signals the postmaster: SIGQUIT, SIGKILL or SIGINT. It may take a moment to end.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let file = self.data.join("postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        let pid = pid
            .and_then(Pid::from_raw)
            .context("postmaster.pid names no process")?;
        kill_process(pid, signal).context("cannot signal the postmaster")?;
        Ok(())
    }

    /// Cuts every session of the services.
    pub(crate) async fn disconnect(&self) -> anyhow::Result<()> {
        let mut admin = self.config.connect("chaos").await?;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND application_name LIKE 'kodo-%' AND application_name <> 'kodo-harness'",
        )
        .execute(&mut admin)
        .await?;
        admin.close().await?;
        Ok(())
    }

    /// Where its data and its log are.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Removes the data. The folder that it was made for is the caller's.
    pub(crate) fn remove(&self) {
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
        let Ok(output) = output else {
            bail!("kodo db {verb} took more than {UP_TIMEOUT:?}");
        };
        let output = output.context("kodo db")?;
        ensure!(
            output.status.success(),
            "kodo db {verb}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn free_port() -> anyhow::Result<u16> {
    // Not from the seed: two soaks of one seed may run beside each other.
    for _ in 0..100 {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}

/// Where the programs of the server at `DB_HOST:DB_PORT` are, if it is on this machine: the first word of its
/// `postmaster.opts`. Saves a search, or a fetch where `db:up` has fetched them.
async fn binaries_of_shared_server() -> Option<PathBuf> {
    let variable = |name: &str, default: &str| {
        crate::environment::text(name).unwrap_or_else(|| default.to_owned())
    };
    let shared = DatabaseConfig {
        host: variable("DB_HOST", "127.0.0.1"),
        port: variable("DB_PORT", "54329").parse().ok()?,
        user: variable("DB_USER", "postgres"),
        password: variable("DB_PASSWORD", "postgres"),
        database: "postgres".to_owned(),
        ssl_mode: kodo_store::SslMode::default(),
    };
    let mut connection = shared.connect("chaos").await.ok()?;
    let command: String = sqlx::query_scalar("SELECT pg_read_file('postmaster.opts')")
        .fetch_one(&mut connection)
        .await
        .ok()?;
    let folder = Path::new(command.split_whitespace().next()?).parent()?;
    folder.join("initdb").exists().then(|| folder.to_owned())
}
