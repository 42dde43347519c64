//! SIGTERM: running steps finish, the rest waits, and nothing holds the exit.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::evidence::{checkpointed, recorded, step_versions, workflow};
use crate::support::{OTHER_INTENT, World, until};

/// Bound on an exit that is to come by itself.
const EXIT: Duration = Duration::from_secs(15);

/// A service with these settings, and a file in which it says how far it is.
async fn world_with(name: &str, settings: &[(&str, u64)]) -> (World, NamedTempFile) {
    let trace = NamedTempFile::new().expect("a file");
    let world = World::with(name, |options| {
        let options = options.env("KODO_FAILPOINT_TRACE", trace.path().display());
        settings
            .iter()
            .fold(options, |options, (name, value)| options.env(name, value))
    })
    .await;
    (world, trace)
}

/// Waits until the first tool call is under way. Its predecessor's record is too early a sign of it: a signal that
/// comes before the checkpoint finds a run between two steps.
async fn tool_begun(trace: &NamedTempFile) {
    until("the first tool call", || async {
        let passed = std::fs::read_to_string(trace.path()).expect("the trace");
        passed.lines().any(|point| point == "tool-001:before")
    })
    .await;
}

/// Waits until the service has understood a signal: it says so in its log.
async fn draining(world: &World) {
    until("the drain", || async {
        world.service.log().contains("draining: no new work")
    })
    .await;
}

#[tokio::test]
async fn a_drain_lets_the_running_step_finish_and_leaves_the_rest_for_the_next_start() {
    let (mut world, trace) = world_with("drain_step", &[("SBX_MOCK_DELAY_MS", 2000)]).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    tool_begun(&trace).await;
    world.service.signal(Signal::TERM).expect("SIGTERM");
    draining(&world).await;
    let exit = world.service.wait(EXIT).await.expect("an exit");
    assert_eq!(exit.code(), Some(0), "{}", world.service.log());
    let steps: Vec<String> = step_versions(&world, &run).await.into_keys().collect();
    assert_eq!(steps, ["plan", "tool-001"]);
    let (executor, attempts, status) = workflow(&world, &run).await;
    assert_eq!((attempts, status.as_str()), (1, "PENDING"), "{executor}");
    let checkpoints: i64 =
        sqlx::query_scalar("SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = $1")
            .bind(&run)
            .fetch_one(&world.system)
            .await
            .expect("checkpoints");
    assert_eq!(checkpoints, 2, "the step that finished is checkpointed too");

    let quick = world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    world.restart(&quick).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded");
    assert_eq!(view["steps"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn a_draining_service_says_so_answers_questions_and_takes_no_work() {
    let (mut world, trace) = world_with("drain_says_so", &[("SBX_MOCK_DELAY_MS", 7000)]).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    tool_begun(&trace).await;
    world.service.signal(Signal::TERM).expect("SIGTERM");
    draining(&world).await;

    let asked = async |path: &str| world.client.get(path).await.expect("an answer");
    let ready = asked("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json(),
        serde_json::json!({"ready": false, "checks": {
            "appDatabase": "ok", "systemDatabase": "ok", "migrations": "ok", "engine": "ok", "draining": "yes"
        }})
    );
    let admin = kodo_dev::harness::Client::new(world.service.admin_port);
    assert_eq!(admin.get("/readyz").await.expect("an answer").status, 503);
    assert_eq!(asked("/healthz").await.status, 200);
    assert_eq!(
        asked(&format!("/runs/{run}")).await.json()["status"],
        "running"
    );
    for (path, body) in [
        ("/intents".to_owned(), OTHER_INTENT),
        (format!("/intents/{intent}/run"), ""),
        ("/crashdemo?wf=late".to_owned(), ""),
    ] {
        let refused = world.client.post(&path, body).await.expect("an answer");
        assert_eq!(
            (refused.status, refused.text()),
            (503, r#"{"error":"unavailable"}"#.to_owned())
        );
        assert_eq!(refused.header("retry-after"), Some("1"), "{path}");
    }
    let exit = world.service.wait(EXIT).await.expect("an exit");
    assert_eq!(exit.code(), Some(0), "{}", world.service.log());
    for (what, expected) in [
        ("SELECT count(*) FROM app.intents", 1),
        ("SELECT count(*) FROM app.runs", 1),
        ("SELECT count(*) FROM app.marks", 0),
    ] {
        assert_eq!(world.count(what).await, expected, "{what}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let settings = [("SBX_MOCK_DELAY_MS", 60_000), ("DRAIN_GRACE_MS", 60_000)];
    let (mut world, trace) = world_with("drain_twice", &settings).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    tool_begun(&trace).await;
    checkpointed(&world, &run, "plan").await;
    world.service.signal(Signal::TERM).expect("SIGTERM");
    draining(&world).await;
    let asked = Instant::now();
    world.service.signal(Signal::INT).expect("SIGINT");
    let exit = world.service.wait(EXIT).await.expect("an exit");
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(exit.code(), Some(1), "{}", world.service.log());
    assert_eq!(workflow(&world, &run).await.2, "PENDING");
}

#[tokio::test]
async fn the_same_signal_twice_at_once_is_one_request_as_a_terminal_and_a_task_runner_send_it() {
    let (mut world, trace) = world_with("drain_echo", &[("SBX_MOCK_DELAY_MS", 1_500)]).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    tool_begun(&trace).await;
    world.service.signal(Signal::INT).expect("SIGINT");
    world.service.signal(Signal::INT).expect("SIGINT");
    draining(&world).await;
    world.service.signal(Signal::INT).expect("SIGINT");
    let exit = world.service.wait(EXIT).await.expect("an exit");
    assert_eq!(exit.code(), Some(0), "{}", world.service.log());
    // The step under way was let finish.
    recorded(&world, &run, "tool-001").await;
}

#[tokio::test]
async fn a_step_that_outlasts_the_grace_period_does_not_hold_the_exit() {
    let settings = [("SBX_MOCK_DELAY_MS", 60_000), ("DRAIN_GRACE_MS", 300)];
    let (mut world, trace) = world_with("drain_grace", &settings).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    tool_begun(&trace).await;
    let asked = Instant::now();
    let exit = world.service.stop().await.expect("an exit");
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(exit.code(), Some(0), "{}", world.service.log());
    // The last lines of an ended process may still be on their way through its pipe.
    until("the line about the step", || async {
        world.service.log().contains("did not finish in time")
    })
    .await;
    let quick = world.options.clone().env("SBX_MOCK_DELAY_MS", 0);
    world.restart(&quick).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn an_idle_service_ends_in_well_under_a_second() {
    let mut world = World::new("drain_idle").await;
    // Kept alive by the client's pool: an idle connection is nothing to wait for.
    assert_eq!(
        world.client.get("/healthz").await.expect("health").status,
        200
    );
    let asked = Instant::now();
    let exit = world.service.stop().await.expect("an exit");
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(exit.code(), Some(0), "{}", world.service.log());
    // It gave its slot back, so that whoever comes next need not wait.
    let holders = world.count("SELECT count(*) FROM app.workers WHERE holder IS NOT NULL");
    assert_eq!(holders.await, 0);
}

#[tokio::test]
async fn a_half_sent_body_holds_the_exit_no_longer_than_the_grace_period() {
    let mut world = World::with("drain_body", |options| options.env("DRAIN_GRACE_MS", 500)).await;
    let mut slow = TcpStream::connect(("127.0.0.1", world.service.port))
        .await
        .expect("a connection");
    slow.write_all(
        b"POST /intents HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 100\r\n\r\n",
    )
    .await
    .expect("a head");
    // The server asks for the body: the request is being served from here on.
    let mut line = [0_u8; 12];
    slow.read_exact(&mut line).await.expect("100 continue");
    assert_eq!(&line, b"HTTP/1.1 100");
    slow.write_all(b"{\"goal\":").await.expect("half a body");
    let asked = Instant::now();
    let exit = world.service.stop().await.expect("an exit");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(exit.code(), Some(0), "{}", world.service.log());
    assert_eq!(world.count("SELECT count(*) FROM app.intents").await, 0);
}
