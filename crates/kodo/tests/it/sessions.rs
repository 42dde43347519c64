//! Connections that are unlike those of the tests: settings of a role or a database, the folder of a socket.

use crate::test_databases::TestDatabases;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

use crate::doctor::DOCTOR;
use crate::program::kodo;
use crate::proof::{proof, violated};
use crate::support::{DEMO_INTENT, World, program, server};

/// Settings that an operator may have made for a role or a database, each of which changes what a text means or is.
const SETTINGS: [(&str, &str); 10] = [
    ("quote_all_identifiers", "on"),
    ("DateStyle", "'SQL, DMY'"),
    ("IntervalStyle", "sql_standard"),
    ("TimeZone", "'Asia/Kathmandu'"),
    ("search_path", "app, pg_temp"),
    ("standard_conforming_strings", "off"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("default_transaction_isolation", "serializable"),
    ("lc_numeric", "'C'"),
];

#[tokio::test]
async fn settings_of_a_role_or_a_database_change_neither_runs_nor_their_proof() {
    let databases = TestDatabases::two(&program(), &server(), "sessions_set").await;
    let databases = databases.expect("databases");
    let mut admin = server().connect("kodo-it").await.expect("a connection");
    for database in [&databases.databases.app, &databases.databases.system] {
        for (name, value) in SETTINGS {
            let set = format!(
                "ALTER DATABASE \"{}\" SET {name} = {value}",
                database.database
            );
            let set = sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut admin).await;
            set.expect("a setting of the database");
        }
    }
    admin.close().await.expect("closed");
    let mut world = World::on(databases, |options| options.env("WF_SLEEP_MS", 0)).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    world
        .client
        .post("/crashdemo?wf=demo", "")
        .await
        .expect("202");
    assert!(world.service.stop().await.expect("an end").success());
    let proof = proof(&world).await;
    assert_eq!(violated(&proof), [""; 0], "{proof:#}");
}

/// A socket in a folder, before the server that all tests share.
fn socket_in(folder: &std::path::Path) {
    let server = server();
    let path = folder.join(format!(".s.PGSQL.{}", server.port));
    let listener = UnixListener::bind(path).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let address = (server.host.clone(), server.port);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(address).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

#[tokio::test]
async fn the_folder_of_a_socket_is_a_host_for_the_service_and_for_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = folder.path().to_str().expect("UTF-8").to_owned();
    socket_in(folder.path());
    let data = folder.path().join("data");
    let data = data.to_str().expect("UTF-8").to_owned();
    let world = World::with("sessions_socket", |options| {
        options.env("DB_HOST", &host).env("KODO_DATA_DIR", &data)
    })
    .await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");

    let environment = world.databases().environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "DB_HOST")
        .chain([
            ("DB_HOST", host.as_str()),
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("KODO_DATA_DIR", data.as_str()),
        ])
        .collect();
    let address = format!("{host}/.s.PGSQL.{}", server().port);
    for arguments in [
        &["db", "status"][..],
        &["db", "up"],
        &["db", "migrate"],
        &["workflow", "get", &run],
        &["artifacts", "list", &run],
        &["prove"],
    ] {
        let ended = kodo(arguments, &environment).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    }
    let status = kodo(&["db", "status"], &environment).await;
    assert_eq!(
        status.stdout,
        format!("db: a Postgres answers at {address}\n")
    );
    let doctor = kodo(&DOCTOR, &environment).await;
    let said: Value = serde_json::from_str(&doctor.stdout).expect("JSON");
    let findings = said["findings"].as_array().expect("findings");
    let database = findings
        .iter()
        .find(|finding| finding["check"] == "database");
    let database = database.expect("a finding");
    assert_eq!(database["level"], "ok", "{database}");
    assert!(
        database["what"]
            .as_str()
            .is_some_and(|what| what.contains(&address)),
        "{database}"
    );
    assert_eq!(doctor.code, Some(0), "{said:#}");
}

/// Nothing waits for a host that no name can be.
#[tokio::test]
async fn a_host_that_cannot_be_one_is_refused_at_once() {
    for host in ["a b", "a,b", "x\ny", "http://x", "[::1]", "user@host"] {
        let ended = kodo(&["db", "migrate"], &[("DB_HOST", host), ("DB_PORT", "1")]).await;
        assert_eq!(ended.code, Some(1), "{host:?}: {ended:?}");
        assert!(
            ended.stderr.starts_with("kodo: DB_HOST=") && ended.stderr.contains("socket's folder"),
            "{host:?}: {ended:?}"
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{host:?}: {ended:?}");
    }
}
