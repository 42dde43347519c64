//! Configuration from outside: flag > environment > default, and a start that says what it cannot read.

use std::net::Ipv4Addr;

use crate::test_databases::TestDatabases;
use tokio::net::TcpListener;

use crate::program::{Ended, kodo};
use crate::scratch::Scratch;
use crate::support::{World, program, server};

/// The one line of a start that was refused.
fn refusal(ended: &Ended) -> &str {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    let line = ended.stderr.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "more than one line:\n{line}");
    line
}

#[tokio::test]
async fn every_value_that_cannot_be_read_stops_the_start_with_one_line() {
    let number =
        |least: u64, most: u64| format!("a whole number from {least} to {most} is accepted");
    let port = number(0, 65_535);
    let milliseconds = number(0, u64::from(u32::MAX));
    for (variable, value, accepted) in [
        (
            "HOST",
            "nowhere",
            "an IP address such as 127.0.0.1 or 0.0.0.0 is accepted",
        ),
        ("PORT", "x", &port),
        ("PORT", "-1", &port),
        ("PORT", "65536", &port),
        ("PORT", "30.01", &port),
        ("PORT", " 3001", &port),
        ("ADMIN_PORT", "http", &port),
        ("DB_PORT", "0", &number(1, 65_535)),
        ("DB_POOL_SIZE", "1", &number(2, 1000)),
        ("DB_CONNECT_TIMEOUT_MS", "1s", &milliseconds),
        ("WF_SLEEP_MS", "-1", &milliseconds),
        ("WF_SLEEP_MS", "4294967296", &milliseconds),
        ("DRAIN_GRACE_MS", "soon", &milliseconds),
        ("SBX_MOCK_DELAY_MS", "0.5", &milliseconds),
        ("MAX_CONCURRENT_RUNS", "0", &number(1, 100_000)),
        ("TEST_SEED", "seed", &number(0, u64::MAX)),
        ("OC_MODE", "replayed", "replay, record, live is accepted"),
        (
            "OC_BASE_URL",
            "api.openai.com",
            "an http or https URL such as http://127.0.0.1:11434/v1 or https://api.openai.com/v1 is accepted",
        ),
        (
            "OC_BASE_URL",
            "http://192.0.2.1/v1",
            "https, or http to this machine's loopback (OC_ALLOW_HTTP=true accepts http to others) is accepted",
        ),
        ("OC_ALLOW_HTTP", "yes", "true or false is accepted"),
        ("OC_STREAM", "1", "true or false is accepted"),
        ("OC_DEADLINE_MS", "0", &number(1, u64::from(u32::MAX))),
        ("OC_UNREACHABLE_MS", "-1", &milliseconds),
        ("OC_MAX_TOKENS", "many", &number(1, u64::from(u32::MAX))),
        ("OC_MAX_STEPS", "257", &number(1, 256)),
        ("OC_MAX_PLAN_BYTES", "0", &number(1024, 4_194_304)),
        ("OC_ALLOWED_TOOLS", "a*b", "or none is accepted"),
        ("OC_ALLOWED_CONNECTORS", ",", "or none is accepted"),
        ("SBX_MODE", "MOCK", "accepted"),
        (
            "OC_FIXTURES_DIR",
            "/no/such/folder",
            "an existing folder is accepted",
        ),
        ("LOG_FORMAT", "xml", "text, json is accepted"),
        (
            "RUST_LOG",
            "info,kodo=loud",
            "a filter such as info or info,kodo_engine=debug is accepted",
        ),
    ] {
        let ended = kodo(&["serve"], &[(variable, value)]).await;
        let line = refusal(&ended);
        assert!(
            line.starts_with(&format!("kodo: {variable}={value} is not valid: ")),
            "{line}"
        );
        assert!(line.ends_with(accepted), "{line}");
        // The same as a flag, which is then what is named.
        let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
        let ended = kodo(&["serve", &format!("{flag}={value}")], &[]).await;
        assert!(refusal(&ended).starts_with(&format!("kodo: {flag}={value} is not valid: ")));
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_stops_the_start_with_one_line() {
    let scratch = Scratch::new("environment_data_dir");
    let file = scratch.file("file", "");
    let file = file.to_str().unwrap();
    let below = format!("{file}/below");
    for value in [file, &below] {
        let ended = kodo(&["serve"], &[("KODO_DATA_DIR", value)]).await;
        assert_eq!(
            refusal(&ended),
            format!(
                "kodo: KODO_DATA_DIR={value} is not valid: a folder is accepted, and {file} is none"
            )
        );
        let ended = kodo(&["dev", "--data-dir", value], &[]).await;
        assert_eq!(
            refusal(&ended),
            format!(
                "kodo: --data-dir={value} is not valid: a folder is accepted, and {file} is none"
            )
        );
    }
    // Nobody may make a folder there, not even root.
    for (arguments, environment, named) in [
        (
            &["serve"][..],
            &[("KODO_DATA_DIR", "/proc/kodo")][..],
            "KODO_DATA_DIR",
        ),
        (
            &["dev"],
            &[("KODO_DATA_DIR", "/proc/kodo")],
            "KODO_DATA_DIR",
        ),
        (&["dev", "--data-dir", "/proc/kodo"], &[], "--data-dir"),
    ] {
        let ended = kodo(arguments, environment).await;
        let line = refusal(&ended);
        assert!(
            line.starts_with(&format!(
                "kodo: {named}=/proc/kodo is not valid: a folder that can be written to is accepted"
            )),
            "{line}"
        );
    }
}

#[tokio::test]
async fn one_port_for_both_apis_is_refused_with_both_settings() {
    for host in ["127.0.0.1", "0.0.0.0", "::"] {
        let environment = [
            ("HOST", host),
            ("API_TOKEN", "t"),
            ("PORT", "3779"),
            ("ADMIN_PORT", "3779"),
        ];
        let ended = kodo(&["serve"], &environment).await;
        assert_eq!(
            refusal(&ended),
            "kodo: PORT=3779 and ADMIN_PORT=3779 are one port, and each API needs its own: set one of them to another"
        );
    }
    let ended = kodo(&["serve"], &[("PORT", "3002")]).await;
    assert!(refusal(&ended).starts_with("kodo: PORT=3002 and ADMIN_PORT=3002 are one port"));
}

#[tokio::test]
async fn a_mode_that_asks_a_model_wants_to_be_told_which_one() {
    let here = ("OC_BASE_URL", "http://127.0.0.1:1/v1");
    for (environment, to_set) in [
        (&[("OC_MODE", "live")][..], "OC_BASE_URL"),
        (&[("OC_MODE", "live"), ("OC_MODEL", "m")], "OC_BASE_URL"),
        (&[("OC_MODE", "live"), here], "OC_MODEL"),
        (&[("OC_MODE", "record")], "OC_BASE_URL"),
        (
            &[("OC_MODE", "record"), here, ("OC_MODEL", "m")],
            "OC_FIXTURES_DIR",
        ),
    ] {
        let ended = kodo(&["serve"], environment).await;
        let line = refusal(&ended);
        let (_, mode) = environment[0];
        assert!(
            line.starts_with(&format!("kodo: OC_MODE={mode} needs")),
            "{line}"
        );
        assert!(line.contains(&format!("set {to_set}")), "{line}");
    }
}

#[tokio::test]
async fn secrets_that_cannot_be_used_are_refused_without_being_shown() {
    let scratch = Scratch::new("environment_token");
    let empty = scratch.file("empty", "\n");
    let empty = empty.to_str().unwrap();
    for (environment, named) in [
        (&[("API_TOKEN", "not a header")][..], "API_TOKEN"),
        (&[("API_TOKEN", "schlüssel")], "API_TOKEN"),
        (&[("API_TOKEN_FILE", empty)], empty),
        (
            &[("API_TOKEN_FILE", "/no/such/file")],
            "API_TOKEN_FILE=/no/such/file",
        ),
        (
            &[("API_TOKEN", "a"), ("API_TOKEN_FILE", empty)],
            "API_TOKEN_FILE",
        ),
        (&[("OC_API_KEY", "not a header")], "OC_API_KEY"),
        (&[("OC_API_KEY_FILE", empty)], empty),
        (
            &[("OC_API_KEY", "a"), ("OC_API_KEY_FILE", empty)],
            "OC_API_KEY_FILE",
        ),
    ] {
        let ended = kodo(&["serve"], environment).await;
        let line = refusal(&ended);
        assert!(line.contains(named), "{line}");
        assert!(
            !line.contains("not a header") && !line.contains("schlüssel"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_a_token() {
    for host in ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"] {
        let ended = kodo(
            &["serve"],
            &[("HOST", host), ("PORT", "0"), ("ADMIN_PORT", "0")],
        )
        .await;
        let line = refusal(&ended);
        assert!(line.starts_with(&format!("kodo: HOST={host} ")), "{line}");
        assert!(line.contains("API_TOKEN"), "{line}");
    }
}

/// A port that is taken as long as the listener lives.
async fn taken() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// The line of a start whose port is taken.
fn in_use(port: u16, variable: &str) -> String {
    format!(
        "kodo: EADDRINUSE: 127.0.0.1:{port} is taken by another program; set {variable} to a free port"
    )
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let (_one, by_environment) = taken().await;
    let (_other, by_flag) = taken().await;
    // Whoever has the default port, it is taken now.
    let _default = TcpListener::bind((Ipv4Addr::LOCALHOST, 3001)).await;
    let environment = by_environment.to_string();
    let flag = format!("--port={by_flag}");
    for (arguments, environment, port) in [
        (&["serve"][..], &[][..], 3001),
        (&["serve"], &[("PORT", "")], 3001),
        (
            &["serve"],
            &[("PORT", environment.as_str())],
            by_environment,
        ),
        (
            &["serve", &flag],
            &[("PORT", environment.as_str())],
            by_flag,
        ),
        (&[&flag, "serve"], &[("PORT", "not looked at")], by_flag),
    ] {
        let ended = kodo(arguments, environment).await;
        assert_eq!(refusal(&ended), in_use(port, "PORT"));
    }
}

#[tokio::test]
async fn a_busy_port_ends_the_start_in_under_a_second_and_disturbs_nothing() {
    let world = World::new("environment_busy").await;
    let database = &world.databases().app;
    let (port, admin) = (world.service.port, world.service.admin_port);
    let nowhere = format!("{}_never", database.database);
    let db_port = server().port.to_string();
    let sessions = async || -> Vec<String> {
        sqlx::query_scalar(
            "SELECT concat(slot, holder) FROM app.workers UNION ALL SELECT executor_id FROM dbos.workflow_status
             UNION ALL SELECT datname FROM pg_database WHERE datname LIKE '%_never' ORDER BY 1",
        )
        .fetch_all(&world.app)
        .await
        .unwrap()
    };
    let before = sessions().await;
    for (product, administration, taken, variable) in
        [(port, 0, port, "PORT"), (0, admin, admin, "ADMIN_PORT")]
    {
        for name in [database.database.as_str(), &nowhere] {
            let ended = kodo(
                &["serve"],
                &[
                    ("PORT", &product.to_string()),
                    ("ADMIN_PORT", &administration.to_string()),
                    ("DB_HOST", &database.host),
                    ("DB_PORT", &db_port),
                    ("DB_USER", &database.user),
                    ("DB_PASSWORD", &database.password),
                    ("APP_DB_NAME", name),
                    ("SYS_DB_NAME", name),
                    ("DB_CONNECT_TIMEOUT_MS", "60000"),
                ],
            )
            .await;
            assert_eq!(refusal(&ended), in_use(taken, variable));
            assert!(ended.took.as_secs() < 1, "took {:?}", ended.took);
        }
    }
    assert_eq!(sessions().await, before);
    let alive = world.client.get("/readyz").await.unwrap();
    assert_eq!(alive.status, 200);
}

#[tokio::test]
async fn a_database_that_does_not_come_ends_the_start_and_says_where_it_was_looked_for() {
    let environment = [
        ("PORT", "0"),
        ("ADMIN_PORT", "0"),
        ("DB_CONNECT_TIMEOUT_MS", "1"),
    ];
    let ended = kodo(&["serve"], &environment).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().expect("a line");
    assert!(
        last.starts_with("kodo: Postgres at 127.0.0.1:1 did not become available"),
        "{last}"
    );
    assert!(last.contains("DB_PORT"), "{last}");
}

#[tokio::test]
async fn a_server_that_denies_ends_the_start_at_once_and_in_plain_words() {
    let server = server();
    let port = server.port.to_string();
    let environment = |more: [(&'static str, &'static str); 1]| {
        let mut all = vec![
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("DB_PORT", port.as_str()),
            ("DB_CONNECT_TIMEOUT_MS", "30000"),
        ];
        all.extend(more);
        all
    };
    for (setting, said) in [
        (
            ("DB_PASSWORD", "wrong"),
            "password authentication failed for user \"postgres\"",
        ),
        (
            ("DB_SSLMODE", "require"),
            "TLS is wanted (DB_SSLMODE), and server does not support TLS",
        ),
    ] {
        let ended = kodo(&["serve"], &environment([setting])).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.took.as_secs() < 10, "{ended:?}");
        let last = ended.stderr.lines().last().expect("a line");
        assert!(
            last.contains(" answered, but: ") && last.contains(said),
            "{last}"
        );
    }
}

#[tokio::test]
async fn the_database_of_a_later_version_is_left_alone() {
    let databases = TestDatabases::one(&program(), &server(), "environment_newer")
        .await
        .unwrap();
    let app = databases.databases.app_pool();
    sqlx::query(
        "INSERT INTO app.schema_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'of a later version', true, '', 0)",
    )
    .execute(&app)
    .await
    .unwrap();
    let variables = databases.databases.environment();
    let mut environment: Vec<(&str, &str)> = variables
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    environment.extend([
        ("PORT", "0"),
        ("ADMIN_PORT", "0"),
        ("DB_CONNECT_TIMEOUT_MS", "60000"),
    ]);
    let ended = kodo(&["serve"], &environment).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().expect("a line");
    assert!(last.contains("migration 999"), "{last}");
}
