//! What a request and a run cost the database: their statements, and the commits that reach the disk.
//!
//! Commits are counted as transaction ids on a server of the test's own: only a transaction that writes takes
//! one. Statements are counted where they pass, between the service and the server.

use crate::test_databases::TestDatabases;
use hyper::Method;
use sqlx::{Connection, PgConnection};

use crate::evidence::{checkpointed, fixtures};
use crate::own_server::OwnServer;
use crate::support::{DEMO_INTENT, OTHER_INTENT, World, text, until};
use crate::tap::{Statement, Tap};

/// A service that reaches a server of its own through a tap.
struct Meter {
    world: World,
    tap: Tap,
    admin: PgConnection,
    _server: OwnServer,
}

impl Meter {
    async fn new(test: &str, tool_ms: u64) -> Self {
        let server = OwnServer::started().await;
        let mut admin = PgConnection::connect_with(&server.config.connect_options("kodo-it"))
            .await
            .expect("a connection");
        // The one thing in an idle server that writes by itself.
        for statement in [
            "ALTER SYSTEM SET autovacuum = off",
            "SELECT pg_reload_conf()",
        ] {
            sqlx::raw_sql(statement)
                .execute(&mut admin)
                .await
                .expect(statement);
        }
        let tap = Tap::on(server.config.port).await;
        let databases = TestDatabases::none(&server.config, test);
        let world = World::on(databases, |options| {
            // However slow the machine is, a step that takes no time is quick.
            let linger = if tool_ms == 0 { 10_000 } else { 50 };
            options
                .env("DB_PORT", tap.port)
                .env("SBX_MOCK_DELAY_MS", tool_ms)
                .env("CHECKPOINT_LINGER_MS", linger)
                .env("OC_FIXTURES_DIR", fixtures())
        })
        .await;
        // Whoever comes first pays for pools and first uses: not what a request costs.
        if tool_ms == 0 {
            let intent = world.intent(OTHER_INTENT).await;
            let run = world.run(&intent).await;
            world.ended(&run).await;
        }
        Self {
            world,
            tap,
            admin,
            _server: server,
        }
    }

    /// How many transactions have written so far, in the whole server.
    async fn commits(&mut self) -> i64 {
        sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            .fetch_one(&mut self.admin)
            .await
            .expect("a snapshot")
    }

    /// Statements to the product database and commits of one request, by the least of a few tries: a sweep that
    /// comes in between reads a statement of its own.
    async fn request(
        &mut self,
        method: &Method,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> (usize, i64) {
        let mut least = (usize::MAX, i64::MAX);
        for attempt in 0..3 {
            let key = key.map(|key| key.replace('*', &attempt.to_string()));
            let headers: Vec<(&str, &str)> = key
                .iter()
                .map(|key| ("Idempotency-Key", key.as_str()))
                .collect();
            let commits = self.commits().await;
            let statements = self.product();
            let answer = self
                .world
                .client
                .send(method.clone(), path, &headers, body.to_owned())
                .await
                .expect("an answer");
            assert!(answer.status < 300, "{}", answer.text());
            let statements = self.product() - statements;
            least = least.min((statements, self.commits().await - commits));
        }
        least
    }

    /// How many statements have gone to the product database: those of requests, and those of the journal.
    fn product(&self) -> usize {
        self.tap.count("kodo-app", "") + self.tap.count("kodo-journal", "")
    }

    /// Commits of one run from its POST to its settled row, and the statements that name it. On a slow machine a
    /// sweep may come to look at it meanwhile: then another run is measured.
    async fn run(&mut self, intent: &str) -> (i64, Vec<Statement>) {
        for _ in 0..20 {
            let (before, sweeps) = (self.commits().await, self.sweeps());
            let run = self.world.run(intent).await;
            assert_eq!(self.world.ended(&run).await["status"], "succeeded");
            let commits = self.commits().await - before;
            if self.sweeps() > sweeps {
                continue;
            }
            let statements = self.tap.statements();
            let naming = statements
                .into_iter()
                .filter(|statement| statement.names(&run));
            return (commits, naming.collect());
        }
        panic!("a sweep came during each of many runs");
    }

    /// How many sweeps have begun.
    fn sweeps(&self) -> usize {
        self.tap.count("kodo-system", "pg_try_advisory_xact_lock")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_costs_no_statement_and_no_commit_more_than_it_must() {
    let mut meter = Meter::new("cost_request", 0).await;
    let (get, post) = (Method::GET, Method::POST);
    let intent = meter.world.intent(DEMO_INTENT).await;
    let run = meter.world.run(&intent).await;
    meter.world.ended(&run).await;
    let view = format!("/runs/{run}");
    assert_eq!(meter.request(&get, "/healthz", None, "").await, (0, 0));
    assert_eq!(meter.request(&get, &view, None, "").await, (1, 0));
    assert_eq!(
        meter.request(&get, "/marks?wf=nobody", None, "").await,
        (1, 0)
    );
    assert_eq!(
        meter.request(&post, "/intents", None, DEMO_INTENT).await,
        (1, 1)
    );
    // The key costs neither a statement nor a commit; a replay writes nothing.
    assert_eq!(
        meter
            .request(&post, "/intents", Some("a*"), DEMO_INTENT)
            .await,
        (1, 1)
    );
    assert_eq!(
        meter
            .request(&post, "/intents", Some("a0"), DEMO_INTENT)
            .await,
        (2, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_quick_steps_costs_a_commit_a_step_and_four_more() {
    let mut meter = Meter::new("cost_run", 0).await;
    let one_call = meter.world.intent(DEMO_INTENT).await;
    let three_calls = meter.world.intent(OTHER_INTENT).await;
    // Stored, claimed; the plan and each call; the workflow with its checkpoints and outcome; settled.
    let (commits, statements) = meter.run(&one_call).await;
    assert_eq!(commits, 2 + 2 + 2, "{statements:#?}");
    let (commits, _) = meter.run(&three_calls).await;
    assert_eq!(commits, 2 + 4 + 2);

    // Each statement in the order sent, without this test's own look at the run.
    let mut sent: Vec<String> = statements
        .iter()
        .filter(|statement| !statement.sql.contains("LEFT JOIN app.run_steps"))
        .map(|statement| {
            let words: Vec<&str> = statement.sql.split_whitespace().collect();
            let written = words.windows(2).filter(|pair| {
                matches!(pair[0], "INTO" | "UPDATE")
                    && (pair[1].contains("app.") || pair[1].contains("dbos."))
            });
            let written: Vec<&str> = written.map(|pair| pair[1]).collect();
            format!("{:<20}{}", statement.application, written.join(" "))
        })
        .collect();
    sent.dedup();
    insta::assert_snapshot!(sent.join("\n"), @r#"
    kodo-journal        app.idempotency_keys app.runs
    kodo-journal        app.run_claims
    kodo-journal        app.run_steps app.runs app.artifacts app.workspace_objects
    kodo-system-journal dbos.workflow_status
    kodo-system-journal dbos.operation_outputs
    kodo-journal        app.runs app.artifacts app.run_claims
    "#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_sweep_writes_nothing_while_runs_are_under_way() {
    // Each tool call outlasts the test: the run stays in the middle of its first one.
    let mut meter = Meter::new("cost_sweep", 600_000).await;
    let intent = meter.world.intent(OTHER_INTENT).await;
    let run = meter.world.run(&intent).await;
    checkpointed(&meter.world, &run, "plan").await;
    // Whatever the start still had to write is written when the next sweep has begun.
    let first = meter.sweeps();
    until("a sweep", || async { meter.sweeps() > first }).await;
    let (before, at) = (meter.commits().await, meter.sweeps());
    until("three more sweeps", || async { meter.sweeps() >= at + 3 }).await;
    assert_eq!(
        meter.commits().await,
        before,
        "{:#?}",
        meter.tap.statements()
    );
    let looked = meter
        .world
        .client
        .get(&format!("/runs/{run}"))
        .await
        .expect("a view");
    assert_eq!(text(&looked, "status"), "running");
}
