//! Output that cannot be written: a closed pipe and a full disk, for the log of a service and for every command.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::test_databases::TestDatabases;
use kodo_dev::harness::Client;
use serde_json::Value;

use crate::own_server::free_port;
use crate::program::kodo;
use crate::support::{DEMO_INTENT, World, program, server, text, until};

/// A service whose standard error is what the test says. Dropping it kills it.
struct Serving {
    child: Child,
    client: Client,
    _databases: TestDatabases,
}

impl Serving {
    async fn with_log(test: &str, log: Stdio) -> Self {
        let databases = TestDatabases::one(&program(), &server(), test).await;
        let databases = databases.expect("databases");
        let (port, admin) = (free_port(), free_port());
        let child = Command::new(program())
            .arg("serve")
            .env("RUST_LOG", "debug")
            .env("PORT", port.to_string())
            .env("ADMIN_PORT", admin.to_string())
            .envs(databases.databases.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the service starts");
        Self {
            child,
            client: Client::new(port),
            _databases: databases,
        }
    }

    /// Waits until it is ready, lets it do a run, and returns what `/readyz` says then.
    async fn works(&mut self) -> Value {
        let client = &self.client;
        let ready = async || {
            let answer = client.get("/readyz").await.ok()?;
            (answer.status == 200).then(|| answer.json())
        };
        until("a ready service", || async { ready().await.is_some() }).await;
        let intent = client.post("/intents", DEMO_INTENT).await.expect("201");
        let intent = text(&intent, "intentId");
        let run = client.post(&format!("/intents/{intent}/run"), "").await;
        let run = text(&run.expect("202"), "runId");
        until("the end of the run", || async {
            let view = client.get(&format!("/runs/{run}")).await.expect("200");
            view.json()["status"] == "succeeded"
        })
        .await;
        assert!(self.child.try_wait().expect("a status").is_none());
        ready().await.expect("a ready service")
    }

    /// SIGTERM; whether it ended well.
    async fn stopped(&mut self) -> bool {
        let pid = i32::try_from(self.child.id()).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        let mut status = None;
        until("the end of the service", || {
            status = self.child.try_wait().expect("a status");
            std::future::ready(status.is_some())
        })
        .await;
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_service_whose_log_is_read_no_more_works_on_and_counts_the_lines_that_are_lost() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut serving = Serving::with_log("log_closed", writer.into()).await;
    let mut first = String::new();
    BufReader::new(reader)
        .read_line(&mut first)
        .expect("a line");
    assert!(first.starts_with('{'), "{first}");
    let said = serving.works().await;
    assert!(said["logLinesLost"].as_u64() > Some(0), "{said}");
    assert!(serving.stopped().await);
}

#[tokio::test]
async fn a_service_whose_log_disk_is_full_works_on_and_counts_the_lines_that_are_lost() {
    let full = File::options().write(true).open("/dev/full");
    let mut serving = Serving::with_log("log_full", full.expect("/dev/full").into()).await;
    let said = serving.works().await;
    assert!(said["logLinesLost"].as_u64() > Some(0), "{said}");
    assert!(serving.stopped().await);
}

#[tokio::test]
async fn a_service_whose_log_nobody_reads_works_on_and_ends_when_it_is_told_to() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // So small that the first lines fill it.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut serving = Serving::with_log("log_stalled", writer.into()).await;
    serving.works().await;
    assert!(serving.stopped().await);
    drop(reader);
}

/// What every command answers where its standard output is full, and where it is closed.
#[tokio::test]
async fn every_command_says_that_its_output_could_not_be_written_and_a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let world = World::with("lost_output", |options| options.env("KODO_DATA_DIR", data)).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let environment = world.databases().environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("KODO_DATA_DIR", data),
            (
                "OC_FIXTURES_DIR",
                concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/oc"),
            ),
        ])
        .collect();
    let listed = kodo(&["artifacts", "list", &run, "-o", "json"], &environment).await;
    let listed: Value = serde_json::from_str(&listed.stdout).expect("artifacts");
    let sha256 = listed[0]["sha256"].as_str().expect("a hash").to_owned();
    let commands: &[(&[&str], i32)] = &[
        (&["--version"], 1),
        (&["--help"], 1),
        (&["serve", "--help"], 1),
        (&["db", "up"], 1),
        (&["db", "status"], 1),
        (&["db", "migrate"], 1),
        (&["db", "seed"], 1),
        (&["workflow", "list"], 1),
        (&["workflow", "get", &run], 1),
        (&["workflow", "steps", &run, "-o", "json"], 1),
        (&["artifacts", "list", &run], 1),
        (&["artifacts", "get", &sha256], 1),
        (&["artifacts", "verify"], 2),
        (&["artifacts", "gc", "--dry-run"], 1),
        (&["oc", "verify"], 1),
        (&["prove"], 2),
        (&["doctor"], 1),
    ];
    for (arguments, unwritten) in commands {
        let printed = kodo(arguments, &environment).await;
        let ended = |out: Stdio, error: Stdio| {
            let mut command = Command::new(program());
            command.args(*arguments).env_clear();
            command.envs(environment.iter().copied());
            let child = command
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(error)
                .spawn();
            child
                .expect("the program runs")
                .wait_with_output()
                .expect("its end")
        };
        let full = || {
            File::options()
                .write(true)
                .open("/dev/full")
                .expect("/dev/full")
        };
        let output = ended(full().into(), Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(*unwritten),
            "{arguments:?}: {said}"
        );
        assert!(
            said.contains("cannot write to standard output: No space left on device"),
            "{arguments:?}: {said}"
        );
        // Nor can it be said.
        let output = ended(full().into(), full().into());
        assert_eq!(output.status.code(), Some(*unwritten), "{arguments:?}");

        let closed = || std::io::pipe().expect("a pipe").1;
        let output = ended(closed().into(), Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), printed.code, "{arguments:?}: {said}");
        assert!(
            !said.contains("panicked") && !said.contains("cannot write"),
            "{said}"
        );
        let output = ended(closed().into(), closed().into());
        assert_eq!(output.status.code(), printed.code, "{arguments:?}");
    }
}

/// A job's own output is a result as well, on both streams.
#[tokio::test]
async fn what_a_job_printed_is_written_or_the_command_fails() {
    for (script, out, code) in [
        ("echo x", "stdout", 125),
        ("echo x >&2", "stderr", 125),
        ("exit 3", "stdout", 3),
    ] {
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let mut command = Command::new(program());
        command.args(["sandbox", "run", "--", "/bin/sh", "-c", script]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match out {
            "stdout" => command.stdout(full),
            _ => command.stderr(full),
        };
        let status = command.status().expect("the program runs");
        assert_eq!(status.code(), Some(code), "{script}");
    }
}
