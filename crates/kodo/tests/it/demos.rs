//! The demonstrations, and `kodo dev`: what a person types first.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kodo_dev::harness::Client;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::process::{Child, Command};

use crate::evidence::evidence;
use crate::own_server::{OwnServer, free_port};
use crate::program::{in_repository, kodo};
use crate::support::{OTHER_INTENT, World, kodo_dev, program, server, until};

/// Bound on an end that is to come by itself.
const END: Duration = Duration::from_secs(60);

/// Databases of a demo of this process id.
async fn demo_databases(pid: u32) -> Vec<String> {
    let options = server().connect_options("kodo-it");
    let mut connection = PgConnection::connect_with(&options)
        .await
        .expect("a connection");
    sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname ~ $1")
        .bind(format!("^kodo_(demo|work)_{pid}_"))
        .fetch_all(&mut connection)
        .await
        .expect("databases")
}

/// Processes that work on such databases: their environment names them.
fn demo_services(pid: u32) -> Vec<PathBuf> {
    let needles = ["demo", "work"].map(|it| format!("APP_DB_NAME=kodo_{it}_{pid}_app"));
    let processes = fs::read_dir("/proc").expect("/proc");
    processes
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| {
            fs::read(process.join("environ"))
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .is_ok_and(|text| needles.iter().any(|needle| text.contains(needle)))
        })
        .collect()
}

fn demo() -> Child {
    let config = server();
    let mut command = Command::new(program());
    command
        .arg("demo")
        .env("KODO_DEV", kodo_dev())
        .env("DB_HOST", &config.host)
        .env("DB_PORT", config.port.to_string())
        .env_remove("PORT")
        .env_remove("ADMIN_PORT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Otherwise below wherever the tests run.
        .env("KODO_DATA_DIR", env!("CARGO_TARGET_TMPDIR"))
        .kill_on_drop(true);
    command.spawn().expect("kodo demo")
}

/// `scripts/kodo demo work` where the jail has a cgroup to stay below that is not there.
async fn work_without_a_jail(arguments: &[&str]) -> (Option<i32>, String) {
    kodo_dev();
    let arguments = [
        &["--sbx-cgroup", "/no/such/cgroup", "demo", "work"],
        arguments,
    ]
    .concat();
    let ended = in_repository("scripts/kodo", &arguments, &[]).await;
    (ended.code, ended.stdout)
}

#[tokio::test]
async fn the_binary_alone_says_where_the_demonstrations_are() {
    for (arguments, said) in [
        (vec!["demo"], "scripts/kodo demo"),
        (vec!["demo", "crash"], "scripts/kodo demo"),
        (vec!["prove", "--demo"], "scripts/kodo prove --demo"),
    ] {
        let ended = kodo(&arguments, &[]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let ended = kodo(&["demo", "--port", "x"], &[]).await;
    assert_eq!(ended.code, Some(1), "settings come first: {ended:?}");
}

#[tokio::test]
async fn where_nothing_can_be_jailed_the_work_is_not_shown_and_says_why() {
    let (code, said) = work_without_a_jail(&[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.starts_with("Not shown:") && said.contains("cgroup"),
        "{said}"
    );
    let (code, said) = work_without_a_jail(&["--allow-none"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("Not shown:"), "{said}");
}

fn signal(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    kill_process(pid.expect("a pid"), signal).expect("a signal");
}

#[tokio::test]
async fn the_demo_shows_runs_surviving_and_leaves_nothing_behind() {
    let demo = demo();
    let pid = demo.id().expect("a pid");
    let output = tokio::time::timeout(END, demo.wait_with_output()).await;
    let output = output.expect("an end").expect("an exit");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "runs whose workflow DBOS recorded as SUCCESS  6 of 6",
        "steps in all                                  24 of 24",
        "steps recorded more than once                 0",
        "the model was asked once in all",
        "- failing before the change: 3 of 4",
        "- failing after the change: 0 of 4",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(!said.contains('\u{1b}'), "no colour where no terminal is");
    assert!(
        said.trim_end()
            .lines()
            .next_back()
            .is_some_and(|last| last.starts_with("Next: "))
    );
    assert_eq!(demo_databases(pid).await, Vec::<String>::new());
    assert_eq!(demo_services(pid), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind_either() {
    let demo = demo();
    let pid = demo.id().expect("a pid");
    until("the demo to be in the middle", || async {
        demo_databases(pid).await.len() == 2 && !demo_services(pid).is_empty()
    })
    .await;
    signal(&demo, Signal::INT);
    let output = tokio::time::timeout(END, demo.wait_with_output()).await;
    let output = output.expect("an end").expect("an exit");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "kodo: interrupted\n"
    );
    assert_eq!(demo_databases(pid).await, Vec::<String>::new());
    assert_eq!(demo_services(pid), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_crash_demo_ends_in_success_beside_a_running_service_and_leaves_its_rows_alone() {
    let world = World::apart("demo_crash", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let before = evidence(&world, &run).await;
    let started = world
        .client
        .post("/crashdemo?wf=other", "")
        .await
        .expect("an answer");
    assert_eq!(started.status, 202);

    let tool = kodo_dev();
    let mut environment = world.databases().environment();
    environment.push(("KODO_DEV".to_owned(), tool.display().to_string()));
    let data = env!("CARGO_TARGET_TMPDIR").to_owned();
    environment.push(("KODO_DATA_DIR".to_owned(), data));
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let demo = kodo(&["demo", "crash", "--wf-sleep-ms", "300"], &environment).await;
    assert_eq!(demo.code, Some(0), "{demo:?}");
    assert!(
        demo.stdout.contains("\nDBOS workflow status: SUCCESS\n"),
        "{}",
        demo.stdout
    );
    assert!(
        demo.stdout.contains("crashdemo: app.marks s1=1 s2=1\n"),
        "{}",
        demo.stdout
    );

    assert_eq!(evidence(&world, &run).await, before);
    let others = world.count("SELECT count(*) FROM app.marks WHERE run_id = 'other'");
    assert!((1..=2).contains(&others.await));
    assert_eq!(world.count("SELECT count(*) FROM app.runs").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM app.intents").await, 1);
}

/// `kodo dev` on a data folder of its own, ready to serve.
async fn dev(server: &OwnServer) -> (Child, Client) {
    let port = free_port();
    let mut command = Command::from(server.command(&["dev"]));
    command
        .env("PORT", port.to_string())
        .env("ADMIN_PORT", "0")
        .env("LOG_FORMAT", "json")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().expect("kodo dev");
    let client = Client::new(port);
    // A first start makes a cluster, which takes its time on a busy disk.
    until("a database", || async { server.answers() }).await;
    until("kodo dev to be ready", || async {
        client
            .get("/readyz")
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await;
    (child, client)
}

/// Ends it, and returns its log.
async fn ended(child: Child, how: Signal, code: Option<i32>) -> String {
    signal(&child, how);
    let output = tokio::time::timeout(END, child.wait_with_output()).await;
    let output = output.expect("an end").expect("an exit");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), code, "{log}");
    log
}

#[tokio::test]
async fn dev_brings_a_database_along_adopts_one_that_is_up_and_stops_what_it_started() {
    let server = OwnServer::new().await;
    let (first, client) = dev(&server).await;
    let stored = client
        .post("/intents", OTHER_INTENT)
        .await
        .expect("an answer");
    assert_eq!(stored.status, 201);
    let log = ended(first, Signal::TERM, Some(0)).await;
    assert!(log.contains("db: started Postgres"), "{log}");
    assert!(log.contains("db: stopped Postgres"), "{log}");
    assert!(!server.answers(), "it stopped what it started");

    let (second, client) = dev(&server).await;
    let intent = stored.json()["intentId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let run = client
        .post(&format!("/intents/{intent}/run"), "")
        .await
        .expect("an answer");
    assert_eq!(run.status, 202, "the data is still there: {}", run.text());
    ended(second, Signal::KILL, None).await;
    assert!(server.answers(), "nobody was left to stop it");

    let (third, _) = dev(&server).await;
    let log = ended(third, Signal::TERM, Some(0)).await;
    assert!(log.contains(" is up at 127.0.0.1:"), "{log}");
    assert!(server.answers(), "it did not stop what it had found");
    // Names the cluster, so that it is removed with the folder.
    server.up();
}
