//! What the tests share.

use std::path::PathBuf;
use std::time::Duration;

use crate::test_databases::TestDatabases;
use kodo_dev::harness::{Answer, Client, Databases, Service, ServiceOptions};
use kodo_store::DatabaseConfig;
use serde_json::Value;
use sqlx::PgPool;
use tokio::time::Instant;

/// Bound on every wait. Reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kodo"))
}

/// What `build` made beside the binary under test.
pub fn kodo_dev() -> PathBuf {
    let tool = program().with_file_name("kodo-dev");
    assert!(tool.is_file(), "run: bin/mise run build");
    tool
}

/// The server under test: `DB_HOST`, `DB_PORT`, `DB_USER`, `DB_PASSWORD`, with the contract's defaults.
#[expect(
    clippy::disallowed_methods,
    reason = "where the tests learn of their server"
)]
pub fn server() -> DatabaseConfig {
    let variable =
        |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    DatabaseConfig {
        host: variable("DB_HOST", "127.0.0.1"),
        port: variable("DB_PORT", "54329").parse().expect("DB_PORT"),
        user: variable("DB_USER", "postgres"),
        password: variable("DB_PASSWORD", "postgres"),
        database: "postgres".to_owned(),
        ssl_mode: kodo_store::SslMode::default(),
    }
}

/// A service on databases of its own. Fields drop in order: the process first, then the databases.
pub struct World {
    pub service: Service,
    pub client: Client,
    pub app: PgPool,
    pub system: PgPool,
    pub options: ServiceOptions,
    databases: TestDatabases,
}

impl World {
    /// Product and system tables in one database: enough for whatever looks at the API.
    pub async fn new(test: &str) -> Self {
        Self::with(test, |options| options).await
    }

    /// The same with other options.
    pub async fn with(test: &str, change: impl FnOnce(ServiceOptions) -> ServiceOptions) -> Self {
        let databases = TestDatabases::one(&program(), &server(), test)
            .await
            .expect("databases");
        Self::on(databases, change).await
    }

    /// Two databases, as in production.
    pub async fn apart(test: &str, change: impl FnOnce(ServiceOptions) -> ServiceOptions) -> Self {
        let databases = TestDatabases::two(&program(), &server(), test)
            .await
            .expect("databases");
        Self::on(databases, change).await
    }

    /// On databases that are there, or that the service is to make.
    pub async fn on(
        databases: TestDatabases,
        change: impl FnOnce(ServiceOptions) -> ServiceOptions,
    ) -> Self {
        // What runs leave in the artifact store goes with the build.
        let options = ServiceOptions::new(program())
            .env("KODO_DATA_DIR", env!("CARGO_TARGET_TMPDIR"))
            .envs(databases.databases.environment());
        let options = change(options);
        let service = Service::start(&options).await.expect("the service starts");
        Self {
            client: service.client(),
            app: databases.databases.app_pool(),
            system: databases.databases.system_pool(),
            service,
            options,
            databases,
        }
    }

    /// Where the rows are.
    pub fn databases(&self) -> &Databases {
        &self.databases.databases
    }

    /// `kill -9`, then a new process with the given options on the same databases.
    pub async fn restart(&mut self, options: &ServiceOptions) {
        self.service.kill9().await.expect("kill");
        self.service = Service::start(options)
            .await
            .expect("the service starts again");
        self.client = self.service.client();
    }

    /// Stores the intent and returns its id.
    pub async fn intent(&self, body: &str) -> String {
        let answer = self
            .client
            .post("/intents", body.to_owned())
            .await
            .expect("an answer");
        assert_eq!(answer.status, 201, "{}", answer.text());
        text(&answer, "intentId")
    }

    /// Starts a run and returns its id.
    pub async fn run(&self, intent: &str) -> String {
        let answer = self
            .client
            .post(&format!("/intents/{intent}/run"), "")
            .await
            .expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.text());
        text(&answer, "runId")
    }

    /// Waits until a run is over, by its row, and returns its view.
    pub async fn ended(&self, run: &str) -> Value {
        until(&format!("the end of {run}"), || async {
            let status: String = sqlx::query_scalar("SELECT status FROM app.runs WHERE id = $1")
                .bind(run)
                .fetch_one(&self.app)
                .await
                .expect("the run's row");
            matches!(status.as_str(), "succeeded" | "failed" | "canceled")
        })
        .await;
        let answer = self
            .client
            .get(&format!("/runs/{run}"))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Counts what a query on the product database counts.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.app)
            .await
            .expect(query)
    }
}

/// A string field of a JSON answer.
pub fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} in {}", answer.text()))
        .to_owned()
}

/// Waits for something to be so, bounded. The one place in the tests that polls.
pub async fn until<F, Fut>(what: &str, mut look: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(
            Instant::now() < deadline,
            "{what} did not come within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The demo intent of the course; a committed fixture plans one tool call for it.
pub const DEMO_INTENT: &str = r#"{"goal":"demo","inputs":{"repo":"sisu-kodo"},"constraints":{"determinism":true},"connectors":[]}"#;

/// An intent without a fixture of its own: the default one plans three tool calls.
pub const OTHER_INTENT: &str = r#"{"goal":"something else","inputs":{},"constraints":{}}"#;
