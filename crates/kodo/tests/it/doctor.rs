//! `kodo doctor`: each kind of trouble made for real, and found.

use std::fs;
use std::time::Duration;

use kodo_dev::harness::{Databases, Service, ServiceOptions};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::own_server::free_port;
use crate::program::{Ended, in_repository, kodo};
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World, program};

/// The doctor is not to keep anybody waiting, whatever else does.
pub const PROMPT: Duration = Duration::from_secs(5);

/// The doctor as programs call it, with patience for a machine that is busy with other tests.
pub const DOCTOR: [&str; 5] = ["doctor", "-o", "json", "--patience", "60"];

/// Beyond any process id.
pub const NOBODY: u32 = 4_194_305;

/// What a doctor said.
pub struct Said {
    pub code: Option<i32>,
    pub json: Value,
}

impl Said {
    pub fn of(ended: &Ended) -> Self {
        let json = serde_json::from_str(&ended.stdout);
        let json = json.unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(ended.stderr, "", "{ended:?}");
        Self {
            code: ended.code,
            json,
        }
    }

    /// Level, text and next command of every finding of a check.
    pub fn all(&self, check: &str) -> Vec<(String, String, String)> {
        let findings = self.json["findings"].as_array().expect("findings");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        findings
            .iter()
            .filter(|finding| finding["check"] == check)
            .map(|it| (text(&it["level"]), text(&it["what"]), text(&it["next"])))
            .collect()
    }

    /// The only finding of a check.
    pub fn one(&self, check: &str) -> (String, String, String) {
        let mut found = self.all(check);
        assert_eq!(found.len(), 1, "{check} in {:#}", self.json);
        found.remove(0)
    }

    /// The only finding of a check, which is a problem; so the whole is not healthy.
    pub fn problem(&self, check: &str) -> (String, String) {
        let (level, what, next) = self.one(check);
        assert_eq!(level, "problem", "{check} in {:#}", self.json);
        assert_eq!(self.code, Some(1));
        assert_eq!(self.json["healthy"], false);
        assert_ne!(next, "", "a problem has a next command: {what}");
        (what, next)
    }
}

/// The doctor in an environment that has nothing but these variables.
pub async fn doctor(environment: &[(&str, &str)]) -> Said {
    Said::of(&kodo(&DOCTOR, environment).await)
}

/// The doctor on these databases, with no data folder to speak of and no ports, and with these variables.
pub async fn doctor_on(databases: &Databases, more: &[(&str, &str)]) -> Said {
    let environment = databases.environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("KODO_DATA_DIR", "/nonexistent/kodo"),
        ])
        .chain(more.iter().copied())
        .collect();
    doctor(&environment).await
}

#[tokio::test]
async fn a_healthy_live_deployment_is_ok_all_over() {
    let world = World::apart("doctor_ok", |options| options).await;
    let (level, what, _) = doctor_on(world.databases(), &[]).await.one("engine");
    assert_eq!(level, "ok", "nobody has asked for anything yet: {what}");
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let port = world.service.port.to_string();
    let admin = world.service.admin_port.to_string();
    let said = doctor_on(
        world.databases(),
        &[
            ("PORT", &port),
            ("ADMIN_PORT", &admin),
            ("KODO_DATA_DIR", "/tmp"),
        ],
    )
    .await;
    assert_eq!(
        (said.code, &said.json["healthy"]),
        (Some(0), &Value::Bool(true)),
        "{:#}",
        said.json
    );
    for finding in said.json["findings"].as_array().expect("findings") {
        // What other tests left, how full the disk is, and whether images of machines were built, which nobody asks
        // for here, are not this deployment's.
        let elsewhere = [
            "sandbox gvisor",
            "sandbox microvm",
            "left databases",
            "data folder",
            "temp folder",
            "connections",
        ];
        if !elsewhere.iter().any(|check| finding["check"] == *check) {
            assert_eq!(finding["level"], "ok", "{finding}");
        }
    }
    let pid = format!("process {} (", world.service.pid().expect("a pid"));
    for check in ["port", "admin port"] {
        let (_, what, _) = said.one(check);
        assert!(
            what.starts_with("a kodo service has port ") && what.contains(&pid),
            "{what}"
        );
    }
    let (_, what, _) = said.one("engine");
    assert!(what.contains("1 SUCCESS") && what.contains(&run), "{what}");
    let (_, what, _) = said.one("workers");
    assert!(what.starts_with("1 live: kodo-0 (process "), "{what}");
    let (_, what, _) = said.one("database");
    assert!(
        what.starts_with("Postgres ") && what.contains(" answers at "),
        "{what}"
    );
}

#[tokio::test]
async fn what_cannot_be_looked_at_says_why_and_the_shape_for_programs_stays() {
    let port = free_port().to_string();
    let said = doctor(&[
        ("DB_PORT", &port),
        ("PORT", "0"),
        ("ADMIN_PORT", "0"),
        ("KODO_DATA_DIR", "/nonexistent"),
    ])
    .await;
    let findings = said.json["findings"].as_array().expect("findings");
    let keys: Vec<&String> = findings[0].as_object().expect("a finding").keys().collect();
    assert_eq!(keys, ["check", "level", "what", "next"]);
    let shape: Vec<String> = findings
        .iter()
        // How full and how writable this machine's folders are is its own business.
        .filter(|it| it["check"] != "data folder" && it["check"] != "temp folder")
        .map(|it| {
            format!(
                "{}: {}",
                it["check"].as_str().unwrap(),
                it["level"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(shape.join("\n"), @r"
    configuration: ok
    port: ok
    admin port: ok
    database: problem
    schema: skipped
    migrations: skipped
    engine: skipped
    workers: skipped
    runs: skipped
    clock: skipped
    left databases: skipped
    leftovers: ok
    planner: ok
    sandbox: ok
    sandbox process: ok
    sandbox gvisor: skipped
    sandbox microvm: skipped
    tools: ok
    tools: ok
    tools: ok
    ");
    let (what, next) = said.problem("database");
    assert_eq!(
        what,
        format!("nothing answers at 127.0.0.1:{port}: DB_HOST and DB_PORT say where it is")
    );
    assert_eq!(next, "kodo db up");
    assert_eq!(said.one("clock").1, "the database is not reachable");
}

#[tokio::test]
async fn in_the_repository_the_next_commands_are_its_tasks_with_the_flags_that_were_given() {
    let port = free_port().to_string();
    let binary = program();
    let arguments = [
        "doctor",
        "-o",
        "json",
        "--patience",
        "60",
        "--db-port",
        &port,
        "--port",
        "0",
        "--admin-port",
        "0",
    ];
    let ended = in_repository(
        binary.to_str().unwrap(),
        &arguments,
        &[("KODO_DATA_DIR", "/nonexistent")],
    )
    .await;
    let (_, next) = Said::of(&ended).problem("database");
    assert_eq!(
        next,
        format!("PORT=0 ADMIN_PORT=0 DB_PORT={port} bin/mise run db:up")
    );
}

#[tokio::test]
async fn a_port_of_another_program_is_named_with_its_process_and_a_way_around() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let said = doctor(&[("PORT", &port.to_string()), ("ADMIN_PORT", "0")]).await;
    let (what, next) = said.problem("port");
    assert!(
        what.starts_with(&format!(
            "EADDRINUSE: port {port} is taken by process {} (",
            std::process::id()
        )),
        "{what}"
    );
    let ports: Vec<u16> = next
        .split(' ')
        .filter_map(|word| word.split_once("PORT=")?.1.parse().ok())
        .collect();
    assert_eq!(ports.len(), 2, "{next}");
    assert!(
        next.ends_with(" kodo serve") && !ports.contains(&port) && ports[0] != ports[1],
        "{next}"
    );
    assert_eq!(said.one("admin port").0, "ok");
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_told_from_a_stranger() {
    let nowhere = free_port();
    let options = ServiceOptions::new(program())
        .env("DB_PORT", nowhere)
        .env("DB_CONNECT_TIMEOUT_MS", 60_000);
    let service = Service::spawn(&options)
        .await
        .expect("a service without a database");
    let said = doctor(&[
        ("PORT", &service.port.to_string()),
        ("ADMIN_PORT", "0"),
        ("DB_PORT", &nowhere.to_string()),
    ])
    .await;
    let (level, what, next) = said.one("port");
    assert_eq!(level, "warn", "{what}");
    assert!(
        what.contains("is not ready")
            && what.contains(&format!("process {}", service.pid().unwrap())),
        "{what}"
    );
    assert_eq!(
        next,
        format!("curl -sS http://127.0.0.1:{}/readyz", service.port)
    );
}

#[tokio::test]
async fn pid_files_of_dead_servers_and_half_made_clusters_are_found() {
    let folder = Scratch::new("doctor_leftovers");
    let whole = folder.path().join("pg/15");
    fs::create_dir_all(whole.join("global")).expect("a folder");
    fs::write(whole.join("PG_VERSION"), "15\n").expect("a file");
    fs::write(whole.join("global/pg_control"), "").expect("a file");
    fs::write(
        whole.join("postmaster.pid"),
        format!("{NOBODY}\n{}\n0\n5\n", whole.display()),
    )
    .expect("a file");
    fs::create_dir_all(folder.path().join(format!("pg/18.init-{NOBODY}"))).expect("a folder");
    let said = doctor(&[("KODO_DATA_DIR", folder.path().to_str().unwrap())]).await;
    let found = said.all("leftovers");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .all(|(level, _, next)| level == "warn" && next == "kodo db up"),
        "{found:?}"
    );
    assert!(found.iter().any(|(_, what, _)| what.contains("postmaster.pid names a process that is no Postgres")), "{found:?}");
    assert!(
        found.iter().any(|(_, what, _)| what.contains(&format!(
            "18.init-{NOBODY} is a cluster that was not finished"
        ))),
        "{found:?}"
    );
}

#[tokio::test]
async fn every_setting_that_cannot_be_used_is_a_finding_and_the_rest_is_looked_at_all_the_same() {
    let said = doctor(&[
        ("PORT", "x"),
        ("DB_PORT", "70000"),
        ("HOST", "0.0.0.0"),
        ("DB_PROVIDER", "podman"),
        ("ADMIN_PORT", "0"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "kodo=loud"),
        ("KODO_DATA_DIR", "/dev/null/data"),
    ])
    .await;
    assert_eq!(said.code, Some(1));
    let found = said.all("configuration");
    for (variable, text) in [
        (
            "PORT",
            "PORT=x is not valid: a whole number from 0 to 65535 is accepted",
        ),
        ("DB_PORT", "DB_PORT=70000 is not valid"),
        ("HOST", "set API_TOKEN or API_TOKEN_FILE"),
        ("DB_PROVIDER", "DB_PROVIDER=podman is not valid"),
        (
            "LOG_FORMAT",
            "LOG_FORMAT=xml is not valid: text, json is accepted",
        ),
        ("RUST_LOG", "RUST_LOG=kodo=loud is not valid"),
        (
            "KODO_DATA_DIR",
            "KODO_DATA_DIR=/dev/null/data is not valid: a folder is accepted, and /dev/null is none",
        ),
    ] {
        let next = match variable {
            "DB_PORT" => "kodo serve --help".to_owned(),
            _ => format!("unset {variable}"),
        };
        assert!(
            found.iter().any(|(level, what, then)| level == "problem"
                && what.contains(text)
                && *then == next),
            "{variable} in {found:?}"
        );
    }
    assert_eq!(found.len(), 7, "{found:?}");
    assert_eq!(said.one("admin port").0, "ok");
    assert_eq!(
        said.one("database").0,
        "skipped",
        "another server is not asked"
    );
    let same = doctor(&[("PORT", "4001"), ("ADMIN_PORT", "4001")]).await;
    let (what, next) = same.problem("configuration");
    assert!(
        what.contains("PORT=4001 and ADMIN_PORT=4001 are one port"),
        "{what}"
    );
    assert_eq!(next, "ADMIN_PORT=4002 kodo serve");
    let unwritable = doctor(&[("KODO_DATA_DIR", "/proc/kodo")]).await;
    let (what, next) = unwritable.problem("data folder");
    assert!(
        what.contains("/proc cannot be written to") && what.contains("does not start"),
        "{what}"
    );
    assert_eq!(next, "export KODO_DATA_DIR=\"$(mktemp -d)\"");
}

#[tokio::test]
async fn for_people_every_finding_is_a_line_with_its_next_command_below() {
    let port = free_port().to_string();
    let ended = kodo(
        &["doctor", "--patience", "60"],
        &[
            ("DB_PORT", &port),
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("KODO_DATA_DIR", "/nonexistent"),
        ],
    )
    .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let what = format!(" nothing answers at 127.0.0.1:{port}: DB_HOST and DB_PORT say where it is");
    let at = lines
        .iter()
        .position(|line| line.starts_with("problem  database ") && line.ends_with(&what));
    let at = at.unwrap_or_else(|| panic!("{}", ended.stdout));
    // Whatever a check is called, what was found stands in one column.
    let column = lines[at].len() - what.len() + 1;
    assert_eq!(lines[at + 1], format!("{:column$}next: kodo db up", ""));
    for line in &lines[..lines.len() - 1] {
        let (before, found) = line.split_at(column);
        assert!(
            before.ends_with(' ') && !found.starts_with(' '),
            "{}",
            ended.stdout
        );
    }
    let last = ended.stdout.lines().next_back().unwrap_or_default();
    assert!(last.starts_with("doctor: problems 1, warnings "), "{last}");
}
