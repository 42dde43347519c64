//! Databases of one's own on a server that is there.

use std::path::PathBuf;
use std::time::Duration;

use kodo_store::DatabaseConfig;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgPool};

/// How often, and how far apart, to look whether the server still makes a database that is to be dropped.
const MAKING_LOOKS: u32 = 100;
const MAKING_PAUSE: Duration = Duration::from_millis(50);

/// A product database and a system database, made for one purpose. Both may be the same one.
#[derive(Debug, Clone)]
pub struct Databases {
    /// The product database.
    pub app: DatabaseConfig,
    /// The system database.
    pub system: DatabaseConfig,
    /// Where large artifacts are stored; `None` for the default place.
    pub artifacts: Option<PathBuf>,
}

impl Databases {
    /// Two names that nobody else uses: `PREFIX_PID_app` and `PREFIX_PID_sys`. The databases are not made yet;
    /// the service makes what is missing. Large artifacts go into a folder that goes with them.
    pub fn named(server: &DatabaseConfig, prefix: &str) -> Self {
        let pid = std::process::id();
        let artifacts = std::env::temp_dir().join(format!("{prefix}_{pid}_artifacts"));
        Self {
            app: server.with_database(format!("{prefix}_{pid}_app")),
            system: server.with_database(format!("{prefix}_{pid}_sys")),
            artifacts: Some(artifacts),
        }
    }

    /// The environment that points a service at them.
    pub fn environment(&self) -> Vec<(String, String)> {
        let artifacts = self.artifacts.as_ref();
        let artifacts = artifacts.map(|it| ("ARTIFACT_STORE", it.display().to_string()));
        [
            ("DB_HOST", self.app.host.clone()),
            ("DB_PORT", self.app.port.to_string()),
            ("DB_USER", self.app.user.clone()),
            ("DB_PASSWORD", self.app.password.clone()),
            ("APP_DB_NAME", self.app.database.clone()),
            ("SYS_DB_NAME", self.system.database.clone()),
        ]
        .into_iter()
        .chain(artifacts)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// A small pool on the product database, for reading rows.
    pub fn app_pool(&self) -> PgPool {
        pool(&self.app)
    }

    /// A small pool on the system database, for reading rows.
    pub fn system_pool(&self) -> PgPool {
        pool(&self.system)
    }

    /// Drops both, whoever is connected, and what is stored for them.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub async fn drop(&self) -> anyhow::Result<()> {
        if let Some(artifacts) = &self.artifacts {
            let _ = std::fs::remove_dir_all(artifacts);
        }
        let maintenance = self.app.with_database("postgres");
        let mut admin = maintenance.connect("kodo-harness").await?;
        // A service that was killed while it made a database is gone, but the server goes on making it.
        for _ in 0..MAKING_LOOKS {
            let making: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity
                                WHERE state = 'active' AND pid <> pg_backend_pid()
                                  AND query LIKE 'CREATE DATABASE%' AND (strpos(query, $1) > 0 OR strpos(query, $2) > 0))",
            )
            .bind(&self.app.database)
            .bind(&self.system.database)
            .fetch_one(&mut admin)
            .await?;
            if !making {
                break;
            }
            tokio::time::sleep(MAKING_PAUSE).await;
        }
        for database in [&self.app.database, &self.system.database] {
            let quoted = database.replace('"', "\"\"");
            sqlx::raw_sql(AssertSqlSafe(format!(
                "DROP DATABASE IF EXISTS \"{quoted}\" WITH (FORCE)"
            )))
            .execute(&mut admin)
            .await?;
        }
        admin.close().await?;
        Ok(())
    }
}

fn pool(config: &DatabaseConfig) -> PgPool {
    PgPoolOptions::new()
        .max_connections(3)
        .connect_lazy_with(config.connect_options("kodo-harness"))
}
