//! `kodo doctor` on servers and databases: each kind of trouble made for real, and found.

use crate::test_databases::TestDatabases;
use kodo_dev::harness::Databases;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::doctor::{DOCTOR, NOBODY, PROMPT, Said, doctor, doctor_on};
use crate::evidence::checkpointed;
use crate::interrupted::FOR_EVER;
use crate::program::{in_repository, kodo};
use crate::support::{OTHER_INTENT, World, program, server};

#[tokio::test]
async fn a_server_that_is_no_postgres_is_called_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 64]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let said = doctor(&[("DB_PORT", &port.to_string())]).await;
    let (what, next) = said.problem("database");
    assert!(
        what.starts_with(&format!(
            "something that is not Postgres listens at 127.0.0.1:{port}, process {}",
            std::process::id()
        )),
        "{what}"
    );
    assert!(
        next.starts_with("DB_PORT=") && next.ends_with(" kodo db up"),
        "{next}"
    );
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_costs_less_than_five_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let port_text = port.to_string();
    let ended = kodo(&["doctor", "-o", "json"], &[("DB_PORT", &port_text)]).await;
    assert!(ended.took < PROMPT, "{ended:?}");
    let said = Said::of(&ended);
    let (what, _) = said.problem("database");
    assert!(
        what.starts_with(&format!("no answer from 127.0.0.1:{port} within ")),
        "{what}"
    );
    assert_eq!(said.one("engine").0, "skipped");
}

#[tokio::test]
async fn a_wrong_password_is_told_from_a_server_that_is_away() {
    let mut config = server();
    config.password = "wrong".to_owned();
    let databases = Databases::named(&config, "kodo_doctor");
    let (what, _) = doctor_on(&databases, &[]).await.problem("database");
    assert!(
        what.contains("does not let") && what.contains("DB_PASSWORD"),
        "{what}"
    );
    assert!(!what.contains("wrong"), "the password is not shown: {what}");
}

#[tokio::test]
async fn a_server_without_the_product_database_is_to_be_migrated_and_its_clock_is_read_all_the_same()
 {
    let databases = TestDatabases::none(&server(), "doctor_none");
    let said = doctor_on(&databases.databases, &[]).await;
    let (what, next) = said.problem("database");
    assert!(
        what.contains(&format!(
            "has no database {}: APP_DB_NAME names it",
            databases.databases.app.database
        )),
        "{what}"
    );
    assert_eq!(next, "kodo db migrate");
    assert_eq!(said.one("clock").0, "ok");
    assert_eq!(said.one("schema").0, "skipped");
}

/// A statement on a database, by an administrator's hand.
async fn by_hand(config: &kodo_store::DatabaseConfig, statement: &str) {
    let mut connection = PgConnection::connect_with(&config.connect_options("kodo-it"))
        .await
        .expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .expect(statement);
    connection.close().await.expect("closed");
}

#[tokio::test]
async fn migrations_that_are_missing_unfinished_changed_or_newer_are_told_apart() {
    let databases = TestDatabases::two(&program(), &server(), "doctor_migrations")
        .await
        .expect("databases");
    let databases = &databases.databases;
    let said = doctor_on(databases, &[]).await;
    assert_eq!(said.one("migrations").0, "ok", "{:#}", said.json);
    let last = "(SELECT max(version) FROM app.schema_migrations)";
    let table = [
        (
            "INSERT INTO app.schema_migrations VALUES (999, 'later', now(), true, '', 0)"
                .to_owned(),
            "has migration 999, which this version of kodo does not know",
            "kodo db migrate",
        ),
        (
            format!(
                "DELETE FROM app.schema_migrations WHERE version = 999; UPDATE app.schema_migrations SET success = false WHERE version = {last}"
            ),
            "did not come to its end",
            "kodo db reset",
        ),
        (
            format!(
                "UPDATE app.schema_migrations SET success = true, checksum = 'x' WHERE version = {last}"
            ),
            "was changed after it was applied",
            "kodo db reset",
        ),
        (
            format!("DELETE FROM app.schema_migrations WHERE version = {last}"),
            "is not recorded as applied",
            "kodo db reset",
        ),
        (
            "ALTER TABLE app.run_steps DROP COLUMN shown, DROP COLUMN view_bytes".to_owned(),
            "are not applied",
            "kodo db migrate",
        ),
        (
            "DROP TABLE app.schema_migrations".to_owned(),
            "has table app.instance, although migration 1, which makes it, is not recorded as applied",
            "kodo db reset",
        ),
    ];
    for (damage, expected, command) in table {
        by_hand(&databases.app, &damage).await;
        let (what, next) = doctor_on(databases, &[]).await.problem("migrations");
        assert!(what.contains(expected), "{what}");
        assert!(next.ends_with(command), "{next}");
    }
    by_hand(&databases.app, "DROP SCHEMA app CASCADE").await;
    let said = doctor_on(databases, &[]).await;
    let (what, next) = said.problem("schema");
    assert!(what.contains("was never migrated"), "{what}");
    assert_eq!(next, "kodo db migrate");
    assert_eq!(said.one("engine").1, "the product schema is not migrated");
}

#[tokio::test]
async fn a_system_database_that_no_service_has_seen_says_that_the_service_was_not_started() {
    let databases = TestDatabases::two(&program(), &server(), "doctor_sys")
        .await
        .expect("databases");
    by_hand(&databases.databases.system, "DROP SCHEMA dbos CASCADE").await;
    let said = doctor_on(&databases.databases, &[]).await;
    let (level, what, next) = said.one("engine");
    assert_eq!(
        (level.as_str(), next.as_str()),
        ("warn", "kodo serve"),
        "{what}"
    );
    assert!(what.contains("no service was started on it"), "{what}");
    assert_eq!(said.code, Some(0), "not started is no fault");
}

#[tokio::test]
async fn work_of_a_killed_worker_is_shown_with_who_had_it() {
    let mut world = World::with("doctor_killed", |options| {
        options.env("SBX_MOCK_DELAY_MS", FOR_EVER)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    checkpointed(&world, &run, "plan").await;
    world.service.kill9().await.expect("kill");
    let said = doctor_on(world.databases(), &[]).await;
    let (level, what, next) = said.one("abandoned");
    assert_eq!(
        (level.as_str(), next.as_str()),
        ("warn", "kodo serve"),
        "{what}"
    );
    assert!(
        what.starts_with("1 workflows are PENDING for kodo-0, which does not run"),
        "{what}"
    );
    let (level, what, _) = said.one("runs");
    assert_eq!(level, "warn");
    assert!(
        what.starts_with("unfinished, and no worker runs: 1 running"),
        "{what}"
    );
    let workers = said.all("workers");
    assert_eq!(workers[0].1, "none runs");
    assert!(
        workers[1]
            .1
            .starts_with("kodo-0 ended without giving its slot back"),
        "{workers:?}"
    );
    assert_eq!(said.code, Some(0), "the next start mends it");
}

#[tokio::test]
async fn databases_of_killed_demonstrations_are_found_and_the_next_command_removes_them() {
    let name = format!("kodo_demo_{NOBODY}_app");
    let maintenance = server().with_database("postgres");
    by_hand(&maintenance, &format!("DROP DATABASE IF EXISTS {name}")).await;
    by_hand(&maintenance, &format!("CREATE DATABASE {name}")).await;
    let config = server();
    let port = config.port.to_string();
    let environment = [
        ("DB_HOST", config.host.as_str()),
        ("DB_PORT", &port),
        ("DB_USER", &config.user),
        ("DB_PASSWORD", &config.password),
        ("APP_DB_NAME", "postgres"),
    ];
    let binary = program();
    let ended = in_repository(binary.to_str().unwrap(), &DOCTOR, &environment).await;
    let (level, what, next) = Said::of(&ended).one("left databases");
    assert_eq!(level, "warn");
    assert!(what.contains(&name), "{what}");
    // Only ours: other tests may have been killed, too, and what is theirs is not for this one to drop.
    let ours =
        format!("scripts/db/psql-app.sh -d postgres -c 'DROP DATABASE \"{name}\" WITH (FORCE)'");
    assert!(
        next.starts_with("scripts/db/psql-app.sh -d postgres -c ")
            && next.contains(&format!("'DROP DATABASE \"{name}\" WITH (FORCE)'")),
        "{next}"
    );
    let dropped = in_repository("/bin/sh", &["-c", &ours], &environment).await;
    assert_eq!(dropped.code, Some(0), "{dropped:?}");
    let ended = in_repository(binary.to_str().unwrap(), &DOCTOR, &environment).await;
    assert!(!Said::of(&ended).one("left databases").1.contains(&name));
}
