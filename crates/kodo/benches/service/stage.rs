//! Where the bench plays: a server, databases of its own on it, and how a service is started there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use kodo_dev::harness::{Databases, Service, ServiceOptions};
use kodo_store::DatabaseConfig;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tempfile::TempDir;

use crate::wire::{self, Request};

/// The demo intent of the course. A committed fixture plans one tool call for it.
pub(crate) const DEMO_INTENT: &str = r#"{"goal":"demo","inputs":{"repo":"sisu-kodo"},"constraints":{"determinism":true},"connectors":[]}"#;

/// Prefix of the names of the bench's databases; the process id follows.
const PREFIX: &str = "kodo_bench";

/// How many lines of a service's log are shown when something failed.
const LAST_WORDS: usize = 20;

/// What every part of the bench works with.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The program that is measured.
    pub(crate) program: PathBuf,
    /// The server, with the maintenance database.
    pub(crate) server: DatabaseConfig,
    /// The bench's own databases.
    pub(crate) databases: Databases,
    /// The product database, for a look at rows.
    pub(crate) app: PgPool,
    /// The system database, for the same.
    pub(crate) system: PgPool,
    /// How long load is put on for one figure (`BENCH_SECONDS`).
    pub(crate) window: Duration,
    /// What services keep that is in no database. In the build folder: a temporary one may be in memory.
    data: Arc<TempDir>,
}

impl Stage {
    /// The stage that the environment describes. Nothing is made yet.
    #[expect(
        clippy::disallowed_methods,
        reason = "where the benchmark learns of its server"
    )]
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let variable =
            |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let server = DatabaseConfig {
            ssl_mode: kodo_store::SslMode::default(),
            host: variable("DB_HOST", "127.0.0.1"),
            port: variable("DB_PORT", "54329").parse().context("DB_PORT")?,
            user: variable("DB_USER", "postgres"),
            password: variable("DB_PASSWORD", "postgres"),
            database: "postgres".to_owned(),
        };
        let seconds: f64 = variable("BENCH_SECONDS", "4")
            .parse()
            .context("BENCH_SECONDS")?;
        ensure!(
            (0.1..=3600.0).contains(&seconds),
            "BENCH_SECONDS={seconds}: 0.1 to 3600 is accepted"
        );
        let databases = Databases::named(&server, PREFIX);
        Ok(Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_kodo")),
            app: databases.app_pool(),
            system: databases.system_pool(),
            server,
            databases,
            window: Duration::from_secs_f64(seconds),
            data: Arc::new(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?),
        })
    }

    /// The same stage for another program, with databases of its own.
    pub(crate) fn beside(&self, name: &str, program: PathBuf) -> Self {
        let with = |database: &DatabaseConfig| {
            let name = format!("{}_{name}", database.database);
            database.with_database(name)
        };
        let databases = Databases {
            app: with(&self.databases.app),
            system: with(&self.databases.system),
            artifacts: None,
        };
        Self {
            program,
            app: databases.app_pool(),
            system: databases.system_pool(),
            server: self.server.clone(),
            databases,
            window: self.window,
            data: Arc::clone(&self.data),
        }
    }

    /// A service as a user has it, except that nothing in the environment of the bench changes what a run is.
    pub(crate) fn service(&self) -> ServiceOptions {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oc");
        let mut options = ServiceOptions::new(&self.program)
            .envs(self.databases.environment())
            .env("OC_FIXTURES_DIR", fixtures.display())
            .env("KODO_DATA_DIR", self.data.path().display())
            .env(
                "ARTIFACT_STORE",
                self.data.path().join("artifacts").display(),
            );
        for (name, value) in [
            ("HOST", "127.0.0.1"),
            ("API_TOKEN", ""),
            ("API_TOKEN_FILE", ""),
            ("OC_MODE", "replay"),
            ("SBX_MODE", "mock"),
            ("SBX_MOCK_DELAY_MS", "0"),
            ("TEST_SEED", "424242"),
            // The default filter. The end of a run is learned from the log: see `runs.rs`.
            ("RUST_LOG", "info,dbos=warn,sqlx=error,hyper=warn"),
        ] {
            options = options.env(name, value);
        }
        options
    }

    /// Removes what benches left behind that were killed before they could.
    pub(crate) async fn sweep(&self) -> anyhow::Result<()> {
        let mut admin =
            PgConnection::connect_with(&self.server.connect_options("kodo-bench")).await?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
                .bind(PREFIX)
                .fetch_all(&mut admin)
                .await?;
        for name in names.iter().filter(|name| is_left_behind(name)) {
            let drop = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
            sqlx::raw_sql(AssertSqlSafe(drop))
                .execute(&mut admin)
                .await?;
        }
        admin.close().await?;
        Ok(())
    }

    /// Drops the bench's databases.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        self.app.close().await;
        self.system.close().await;
        self.databases.drop().await
    }

    /// What the figures were measured on.
    pub(crate) async fn machine(&self) -> anyhow::Result<Value> {
        let mut server =
            PgConnection::connect_with(&self.server.connect_options("kodo-bench")).await?;
        let (version, fsync, commit): (String, String, String) = sqlx::query_as(
            "SELECT current_setting('server_version'), current_setting('fsync'),
                    current_setting('synchronous_commit')",
        )
        .fetch_one(&mut server)
        .await?;
        server.close().await?;
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(json!({
            "figure": "machine",
            "cores": std::thread::available_parallelism()?.get(),
            "loadAverage1m": load.split(' ').next().and_then(|load| load.parse::<f64>().ok()),
            "postgres": version,
            "fsync": fsync,
            "synchronousCommit": commit,
            "windowSeconds": self.window.as_secs_f64(),
        }))
    }

    /// How many transactions have written something on the whole server, up to now.
    ///
    /// Postgres gives a number to each transaction that writes, and to no other, so the difference of two of
    /// these is the durable commits in between. Asking takes no number. The server's other databases count
    /// too: exact on a server that does nothing else.
    pub(crate) async fn written_transactions(&self) -> anyhow::Result<i64> {
        Ok(
            sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
                .fetch_one(&self.app)
                .await?,
        )
    }
}

/// Stores the demo intent and returns the request that runs it.
pub(crate) async fn store_intent(connection: &mut wire::Connection) -> anyhow::Result<Request> {
    let answer = connection
        .ask(&Request::post("/intents", DEMO_INTENT))
        .await?;
    let id = text(answer, "intentId")?;
    Ok(Request::post(&format!("/intents/{id}/run"), ""))
}

/// Ends a service, which must go in peace.
pub(crate) async fn stop(mut service: Service) -> anyhow::Result<()> {
    let status = service.stop().await?;
    ensure!(
        status.success(),
        "the service ended with {status}; {}",
        last_words(&service)
    );
    Ok(())
}

/// The last lines of a service's log, for the message of a failure.
pub(crate) fn last_words(service: &Service) -> String {
    let log = service.log();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(LAST_WORDS);
    format!("the service's log ends with:\n{}", lines[last..].join("\n"))
}

/// A string of a JSON answer.
pub(crate) fn text(answer: &[u8], field: &str) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_slice(answer)?;
    let value = answer[field].as_str();
    Ok(value
        .with_context(|| format!("no {field} in {answer}"))?
        .to_owned())
}

/// Whether a database is that of a bench whose process is over.
fn is_left_behind(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix('_')?.split('_').next())
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
