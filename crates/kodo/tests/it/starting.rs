//! What keeps a service from starting, or from standing: told by name in the log, by `/readyz` and by the doctor.

use crate::test_databases::TestDatabases;
use kodo_dev::harness::{Service, ServiceOptions};
use kodo_store::DatabaseConfig;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::doctor::doctor_on;
use crate::own_server::OwnServer;
use crate::program::kodo;
use crate::support::{DEMO_INTENT, program, server, until};

/// Statements of somebody else, whose session stays open until it is dropped.
async fn session(config: &DatabaseConfig, statements: &str) -> PgConnection {
    let options = config.connect_options("somebody-else");
    let mut connection = PgConnection::connect_with(&options)
        .await
        .expect("a session");
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .expect(statements);
    connection
}

async fn pid(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await
        .expect("a pid")
}

/// Waits until `/readyz` gives a reason for a failing check, and returns it.
async fn reason(service: &Service, check: &str) -> String {
    let client = service.client();
    let said = async || {
        let answer = client.get("/readyz").await.ok()?;
        let reason = answer.json()["reasons"][check].as_str().map(str::to_owned);
        assert!(
            reason.is_none() || answer.status == 503,
            "{}",
            answer.text()
        );
        reason
    };
    until(&format!("a reason for {check}"), || async {
        said().await.is_some()
    })
    .await;
    said().await.expect("the reason")
}

fn options(databases: &TestDatabases) -> ServiceOptions {
    ServiceOptions::new(program()).envs(databases.databases.environment())
}

#[tokio::test]
async fn two_services_that_start_at_once_on_a_fresh_server_are_both_ready() {
    for one_database in [false, true] {
        let databases = TestDatabases::none(&server(), &format!("starting_two_{one_database}"));
        let mut options = options(&databases);
        if one_database {
            options = options.env("SYS_DB_NAME", &databases.databases.app.database);
        }
        let (one, other) = tokio::join!(Service::start(&options), Service::start(&options));
        for service in [one, other] {
            let service = service.expect("a ready service");
            let created = service.client().post("/intents", DEMO_INTENT).await;
            assert_eq!(created.expect("an answer").status, 201);
        }
    }
}

#[tokio::test]
async fn an_open_transaction_that_blocks_the_first_start_is_named_everywhere() {
    let databases = TestDatabases::none(&server(), "starting_blocked");
    for config in [&databases.databases.app, &databases.databases.system] {
        config.ensure_exists().await.expect("a database");
    }
    // A snapshot: the engine builds its indexes concurrently, which waits for every older one.
    let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";
    let mut other = session(&databases.databases.system, open).await;
    let pid = pid(&mut other).await;
    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    let named = |text: &str| {
        text.contains(&format!(
            "session {pid} of the server (somebody-else, idle in transaction, for "
        ))
    };
    let said = reason(&service, "engine").await;
    assert!(named(&said), "{said}");
    assert!(named(&service.log()), "{}", service.log());
    let (what, next) = doctor_on(&databases.databases, &[])
        .await
        .problem("blocked");
    assert!(named(&what), "{what}");
    assert!(
        next.contains(&format!("pg_terminate_backend({pid})")),
        "{next}"
    );
    other.close().await.expect("closed");
    service.ready().await.expect("a ready service");
}

/// Statements of services in a database that are under way.
async fn at_work(config: &DatabaseConfig) -> i64 {
    let mut connection = session(config, "SELECT 1").await;
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'kodo-%' AND state = 'active'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("a count")
}

/// Its statement would hold up whoever starts next.
#[tokio::test]
async fn a_start_that_is_ended_while_it_is_blocked_leaves_no_statement_behind() {
    let databases = TestDatabases::none(&server(), "starting_ended");
    for config in [&databases.databases.app, &databases.databases.system] {
        config.ensure_exists().await.expect("a database");
    }
    let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";
    let other = session(&databases.databases.system, open).await;
    for killed in [false, true] {
        let mut service = Service::spawn(&options(&databases))
            .await
            .expect("a service");
        let said = reason(&service, "engine").await;
        assert!(said.contains("somebody-else"), "{said}");
        match killed {
            true => service.kill9().await.expect("killed"),
            false => drop(service.stop().await.expect("an end")),
        }
        until("the end of its statements", || async {
            at_work(&databases.databases.system).await == 0
        })
        .await;
    }
    other.close().await.expect("closed");
    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    service.ready().await.expect("a ready service");
}

#[tokio::test]
async fn a_read_only_system_database_is_named_before_the_engine_is_started() {
    let databases = TestDatabases::two(&program(), &server(), "starting_sys_read_only").await;
    let databases = databases.expect("databases");
    let set = format!(
        "ALTER DATABASE \"{}\" SET default_transaction_read_only = on",
        databases.databases.system.database
    );
    session(&server(), &set)
        .await
        .close()
        .await
        .expect("closed");
    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    let said = reason(&service, "systemDatabase").await;
    assert!(
        said.starts_with("default_transaction_read_only is on"),
        "{said}"
    );
    let ready = service.client().get("/readyz").await.expect("an answer");
    assert_eq!(ready.json()["checks"]["systemDatabase"], "readOnly");
    let reset = set.replace(
        "SET default_transaction_read_only = on",
        "RESET default_transaction_read_only",
    );
    session(&server(), &reset)
        .await
        .close()
        .await
        .expect("closed");
    service.ready().await.expect("a ready service");
}

#[tokio::test]
async fn a_lock_on_the_product_database_that_blocks_a_start_is_named_everywhere() {
    let databases = TestDatabases::two(&program(), &server(), "starting_locked").await;
    let databases = databases.expect("databases");
    let lock = "BEGIN; LOCK TABLE app.instance IN ACCESS EXCLUSIVE MODE";
    let mut other = session(&databases.databases.app, lock).await;
    let pid = pid(&mut other).await;
    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    let named = |text: &str| text.contains(&format!("session {pid} of the server (somebody-else"));
    let said = reason(&service, "migrations").await;
    assert!(named(&said), "{said}");
    assert!(named(&service.log()), "{}", service.log());
    other.close().await.expect("closed");
    service.ready().await.expect("a ready service");
    let ready = service.client().get("/readyz").await.expect("an answer");
    assert_eq!(ready.json()["reasons"], Value::Null);
}

/// A lock that a pooler keeps in a session which nobody uses any more.
#[tokio::test]
async fn a_launch_lock_that_no_live_service_holds_is_named_and_broken_when_asked_to() {
    let databases = TestDatabases::two(&program(), &server(), "starting_launch").await;
    let databases = databases.expect("databases");
    let instance: String = sqlx::query_scalar("SELECT id FROM app.instance")
        .fetch_one(&databases.databases.app_pool())
        .await
        .expect("an instance");
    let lock = format!("SELECT pg_advisory_lock(x'{instance}'::int, -2)");
    let mut left = session(&databases.databases.system, &lock).await;
    let pid = pid(&mut left).await;
    let named = |text: &str| text.contains(&format!("session {pid} of the server (somebody-else"));

    let (what, next) = doctor_on(&databases.databases, &[])
        .await
        .problem("launch lock");
    assert!(
        named(&what) && next.ends_with("doctor --fix"),
        "{what}: {next}"
    );

    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    let said = reason(&service, "engine").await;
    assert!(named(&said), "{said}");
    // A service that holds its slot is alive, and may be the one that has the lock.
    assert_eq!(
        doctor_on(&databases.databases, &[])
            .await
            .all("launch lock")
            .len(),
        0
    );
    service.kill9().await.expect("killed");

    // Nothing is broken that was not agreed to.
    let environment = databases.databases.environment();
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    environment.extend([
        ("PORT", "0"),
        ("ADMIN_PORT", "0"),
        ("KODO_DATA_DIR", "/tmp"),
    ]);
    let kept = kodo(&["doctor", "--fix"], &environment).await;
    assert!(kept.stdout.contains("nothing was changed"), "{kept:?}");
    assert_eq!(self::pid(&mut left).await, pid);
    let fixed = kodo(&["doctor", "--fix", "--yes"], &environment).await;
    assert!(
        fixed
            .stdout
            .contains(&format!("ended session {pid} of the server")),
        "{fixed:?}"
    );
    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    service.ready().await.expect("a ready service");
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused_before_anything_is_written_there() {
    for encoding in ["WIN1252", "LATIN1", "SQL_ASCII", "EUC_JP"] {
        for which in ["app", "sys"] {
            let databases = TestDatabases::none(&server(), &format!("starting_{encoding}_{which}"));
            let odd = match which {
                "app" => &databases.databases.app,
                _ => &databases.databases.system,
            };
            let create = format!(
                "CREATE DATABASE \"{}\" TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'",
                odd.database
            );
            session(&server(), &create)
                .await
                .close()
                .await
                .expect("closed");
            let environment = databases.databases.environment();
            let environment: Vec<(&str, &str)> = environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .chain([
                    ("PORT", "0"),
                    ("ADMIN_PORT", "0"),
                    ("KODO_DATA_DIR", "/tmp"),
                ])
                .collect();
            let commands: &[&[&str]] = match which {
                "app" => &[&["serve"], &["db", "migrate"], &["db", "reset"]],
                _ => &[&["serve"]],
            };
            for arguments in commands {
                let ended = kodo(arguments, &environment).await;
                assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
                let last = ended.stderr.lines().last().unwrap_or_default();
                assert!(
                    last.contains(&odd.database)
                        && last.contains(&format!("encoding {encoding}"))
                        && last.contains("ENCODING 'UTF8'"),
                    "{arguments:?}: {ended:?}"
                );
            }
            let mut looking = session(odd, "SELECT 1").await;
            let schemas: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'dbos')",
            )
            .fetch_one(&mut looking)
            .await
            .expect("a count");
            assert_eq!(schemas, 0, "{encoding} {which}");
            looking.close().await.expect("closed");
            if which == "app" {
                let (what, _) = doctor_on(&databases.databases, &[])
                    .await
                    .problem("encoding");
                assert!(what.contains(encoding), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_database_that_is_read_only_is_named_by_readyz_the_log_and_the_doctor() {
    let databases = TestDatabases::two(&program(), &server(), "starting_read_only").await;
    let databases = databases.expect("databases");
    let set = |value: &str| {
        format!(
            "ALTER DATABASE \"{}\" SET default_transaction_read_only = {value}",
            databases.databases.app.database
        )
    };
    session(&server(), &set("on"))
        .await
        .close()
        .await
        .expect("closed");
    let mut service = Service::spawn(&options(&databases))
        .await
        .expect("a service");
    let said = reason(&service, "appDatabase").await;
    assert!(
        said.starts_with("default_transaction_read_only is on"),
        "{said}"
    );
    let checks = service
        .client()
        .get("/readyz")
        .await
        .expect("an answer")
        .json();
    assert_eq!(checks["checks"]["appDatabase"], "readOnly");
    until("a line in the log", || {
        let log = service.log();
        std::future::ready(log.contains("default_transaction_read_only is on"))
    })
    .await;
    let (what, _) = doctor_on(&databases.databases, &[])
        .await
        .problem("read-only");
    assert!(
        what.contains("default_transaction_read_only is on"),
        "{what}"
    );
    session(&server(), &set("off"))
        .await
        .close()
        .await
        .expect("closed");
    service.ready().await.expect("a ready service");
}

/// A primary that comes back as a standby, and is promoted later.
#[tokio::test]
async fn a_demoted_primary_makes_the_service_unready_says_why_and_is_waited_out() {
    let own = OwnServer::started().await;
    let databases = TestDatabases::none(&own.config, "starting_demoted");
    let mut service = Service::start(&options(&databases))
        .await
        .expect("a service");
    own.down();
    std::fs::write(own.data().join("standby.signal"), "").expect("standby.signal");
    own.up();
    let said = reason(&service, "appDatabase").await;
    assert!(said.contains("standby"), "{said}");
    let said = reason(&service, "systemDatabase").await;
    assert!(said.contains("standby"), "{said}");
    let refused = service
        .client()
        .post("/intents", DEMO_INTENT)
        .await
        .expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.text());
    until("the cause in the log line of the 503", || {
        let log = service.log();
        let line = log.lines().find(|line| line.contains("\"status\":503"));
        std::future::ready(
            line.is_some_and(|line| line.contains("read-only") || line.contains("standby")),
        )
    })
    .await;
    let (what, _) = doctor_on(&databases.databases, &[])
        .await
        .problem("read-only");
    assert!(what.contains("standby"), "{what}");
    session(&own.config, "SELECT pg_promote()")
        .await
        .close()
        .await
        .expect("closed");
    service.ready().await.expect("a ready service");
    drop(service);
}

#[tokio::test]
async fn a_role_whose_connections_are_used_up_is_named_by_readyz_the_log_and_the_doctor() {
    let databases = TestDatabases::none(&server(), "starting_role");
    let role = format!("kodo_it_small_{}", std::process::id());
    let by_hand = async |statement: String| {
        session(&server(), &statement)
            .await
            .close()
            .await
            .expect("closed");
    };
    by_hand(format!(
        "CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'small'"
    ))
    .await;
    let options = options(&databases)
        .env("DB_USER", &role)
        .env("DB_PASSWORD", "small");
    let mut service = Service::start(&options).await.expect("a service");
    by_hand(format!("ALTER ROLE {role} CONNECTION LIMIT 0")).await;
    by_hand(format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    ))
    .await;
    let too_many = format!("too many connections for role \"{role}\" (SQLSTATE 53300)");
    for check in ["appDatabase", "systemDatabase"] {
        let said = reason(&service, check).await;
        assert!(said.contains(&too_many), "{said}");
    }
    let refused = service
        .client()
        .post("/intents", DEMO_INTENT)
        .await
        .expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.text());
    until("the cause in the log line of the 503", || {
        let log = service.log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["status"] == 503);
        std::future::ready(line.is_some_and(|line| {
            line["cause"]
                .as_str()
                .is_some_and(|cause| cause.contains(&too_many))
        }))
    })
    .await;
    let small = [("DB_USER", role.as_str()), ("DB_PASSWORD", "small")];
    let (what, _) = doctor_on(&databases.databases, &small)
        .await
        .problem("database");
    assert!(what.contains("too many connections for role"), "{what}");
    by_hand(format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    service.ready().await.expect("a ready service");
    drop(service);
    for config in [&databases.databases.app, &databases.databases.system] {
        by_hand(format!(
            "DROP DATABASE \"{}\" WITH (FORCE)",
            config.database
        ))
        .await;
    }
    by_hand(format!("DROP ROLE {role}")).await;
}

/// Nobody's wait: a clean stop in the middle of a run says nothing of databases that it has closed itself.
#[tokio::test]
async fn a_clean_stop_with_a_run_under_way_logs_no_settling_that_failed() {
    let (mut world, _) = crate::interrupted::interrupted("starting_stop", 600).await;
    assert!(world.service.stop().await.expect("an end").success());
    let log = world.service.log();
    assert!(!log.contains("could not settle"), "{log}");
}
