//! A lost database is weather: requests get 503 quickly, nothing that was accepted is lost, the process stays.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::test_databases::TestDatabases;
use hyper::Method;
use kodo_dev::harness::{Client, Service, ServiceOptions};
use tokio::task::JoinHandle;

use crate::evidence::{step_versions, workflow};
use crate::own_server::{OwnServer, free_port};
use crate::support::{OTHER_INTENT, World, program, text, until};

/// What the contract allows for an answer while the database is away.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Clients that start runs and look at the service's health, until they are told to stop.
struct Load {
    tally: Arc<Tally>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    accepted: Mutex<Vec<String>>,
    refused: Mutex<Vec<Duration>>,
    /// What should not have happened.
    wrong: Mutex<Vec<String>>,
    health: Mutex<Vec<Duration>>,
}

impl Load {
    fn start(client: &Client, intent: &str) -> Self {
        let tally = Arc::new(Tally::default());
        let mut tasks = vec![tokio::spawn(watch_health(
            client.clone(),
            Arc::clone(&tally),
        ))];
        for number in 0..3 {
            let (client, tally) = (client.clone(), Arc::clone(&tally));
            let path = format!("/intents/{intent}/run");
            tasks.push(tokio::spawn(async move {
                post_runs(number, &client, &tally, &path).await;
            }));
        }
        Self { tally, tasks }
    }

    fn accepted(&self) -> usize {
        self.tally.accepted.lock().unwrap().len()
    }

    fn refused(&self) -> usize {
        self.tally.refused.lock().unwrap().len()
    }

    /// Waits for this many more accepted runs.
    async fn accepts(&self, more: usize) {
        let goal = self.accepted() + more;
        until("accepted runs", || async { self.accepted() >= goal }).await;
    }

    /// Stops, and returns the runs that were accepted. Fails where a client saw what it should not have.
    async fn stop(self) -> Vec<String> {
        self.tally.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client");
        }
        let wrong = self.tally.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
        let slowest = self.tally.refused.lock().unwrap().iter().max().copied();
        assert!(slowest < Some(PROMPTLY), "a 503 took {slowest:?}");
        let health = self.tally.health.lock().unwrap();
        let slowest = health.iter().max().copied().unwrap();
        assert!(
            health.len() > 50 && slowest < Duration::from_secs(1),
            "/healthz took {slowest:?}"
        );
        self.tally.accepted.lock().unwrap().clone()
    }
}

async fn post_runs(number: usize, client: &Client, tally: &Tally, path: &str) {
    for request in 0.. {
        if tally.stop.load(Ordering::Relaxed) {
            return;
        }
        // A client that was told 503 sends the same again: the key makes one run of it.
        let key = format!("{number}-{request}");
        loop {
            let asked = Instant::now();
            let headers = [("Idempotency-Key", key.as_str())];
            match client.send(Method::POST, path, &headers, "{}").await {
                Ok(answer) if answer.status == 202 => {
                    let run = text(&answer, "runId");
                    tally.accepted.lock().unwrap().push(run);
                    break;
                }
                Ok(answer) if answer.status == 503 && answer.header("retry-after").is_some() => {
                    tally.refused.lock().unwrap().push(asked.elapsed());
                }
                other => tally.wrong.lock().unwrap().push(format!("{other:?}")),
            }
            if tally.stop.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn watch_health(client: Client, tally: Arc<Tally>) {
    while !tally.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match client.get("/healthz").await {
            Ok(answer) if answer.status == 200 => {
                tally.health.lock().unwrap().push(asked.elapsed());
            }
            other => tally
                .wrong
                .lock()
                .unwrap()
                .push(format!("/healthz: {other:?}")),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all_succeeded(world: &World, runs: &[String]) {
    let over = async || {
        let open = "SELECT count(*) FROM app.runs WHERE status <> 'succeeded'";
        world.count(open).await == 0
    };
    until("the end of every accepted run", over).await;
    for run in runs {
        assert_eq!(step_versions(world, run).await.len(), 4, "{run}");
        assert_eq!(workflow(world, run).await.2, "SUCCESS", "{run}");
    }
    let checkpoints: i64 = sqlx::query_scalar("SELECT count(*) FROM dbos.operation_outputs")
        .fetch_one(&world.system)
        .await
        .expect("checkpoints");
    // A run whose 202 was lost with the server is a run all the same; its client asked again with its key.
    let all = world.count("SELECT count(*) FROM app.runs").await;
    assert_eq!(
        checkpoints,
        all * 4,
        "each step of each run is checkpointed once"
    );
    assert_eq!(usize::try_from(all).unwrap(), runs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_for_ten_seconds_and_then_killed_under_load_costs_no_accepted_run() {
    let server = OwnServer::started().await;
    let databases = TestDatabases::none(&server.config, "outage");
    let mut world = World::on(databases, |options| options.env("SBX_MOCK_DELAY_MS", 100)).await;
    let pid = world.service.pid();
    let intent = world.intent(OTHER_INTENT).await;
    let load = Load::start(&world.client, &intent);
    load.accepts(20).await;

    // Longer than a worker keeps its slot without hearing from the server.
    server.down();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(load.refused() > 5, "requests were answered meanwhile");
    server.up();
    load.accepts(20).await;
    world.service.ready().await.expect("ready again");
    // The connections that were given up are closed.
    until("one connection for each journal", || async {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'kodo-%journal'",
        )
        .fetch_one(&world.app)
        .await
        .expect("connections");
        count <= 2
    })
    .await;

    // Shorter than that, and without a farewell.
    server.kill();
    server.up();
    load.accepts(20).await;

    let accepted = load.stop().await;
    all_succeeded(&world, &accepted).await;
    crate::proof::assert_invariants_hold(&world).await;
    assert_eq!(world.service.pid(), pid, "the process stayed");
    // Nothing was left lying about until somebody wondered.
    assert!(!world.service.log().contains("did not run; resuming it"));
}

#[tokio::test]
async fn a_service_that_starts_before_postgres_waits_and_says_what_it_waits_for() {
    let server = OwnServer::new().await;
    let databases = TestDatabases::none(&server.config, "early");
    let options = ServiceOptions::new(program()).envs(databases.databases.environment());
    let mut service = Service::spawn(&options).await.expect("ports");
    let client = service.client();
    assert_eq!(client.get("/healthz").await.expect("health").status, 200);
    let ready = client.get("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["ready"], false);
    assert_eq!(
        ready.json()["checks"]["appDatabase"],
        "unreachable",
        "{}",
        ready.text()
    );
    let refused = client
        .post("/intents", OTHER_INTENT)
        .await
        .expect("an answer");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.text(), r#"{"error":"unavailable"}"#);
    assert!(refused.header("retry-after").is_some());
    assert!(service.log().contains("is not available yet; trying again"));

    server.up();
    service.ready().await.expect("ready");
    let ready = client.get("/readyz").await.expect("an answer");
    assert_eq!(
        ready.text(),
        r#"{"ready":true,"checks":{"appDatabase":"ok","systemDatabase":"ok","migrations":"ok","engine":"ok","draining":"no"}}"#
    );
    let stored = client
        .post("/intents", OTHER_INTENT)
        .await
        .expect("an answer");
    assert_eq!(stored.status, 201);
    assert!(service.stop().await.expect("an exit").success());
}

#[test]
fn a_start_that_never_reaches_postgres_gives_up_with_one_clear_line() {
    let port = free_port();
    let started = Instant::now();
    let output = Command::new(program())
        .arg("serve")
        .env("PORT", "0")
        .env("ADMIN_PORT", "0")
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", port.to_string())
        .env("DB_CONNECT_TIMEOUT_MS", "1200")
        .stdin(Stdio::null())
        .output()
        .expect("kodo serve");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("kodo: "))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    let place = format!("Postgres at 127.0.0.1:{port} did not become available within 1.2s");
    assert!(
        lines[0].contains(&place) && lines[0].contains("db:up"),
        "{}",
        lines[0]
    );
}
