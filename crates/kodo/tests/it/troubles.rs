//! What is wrong with a database is named with its cause and its cure, alike by every command and by the start.

use kodo_store::DatabaseConfig;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::own_server::free_port;
use crate::program::kodo;
use crate::support::{program, server};
use crate::test_databases::TestDatabases;

/// One trouble: how it is made, and what is said of it.
struct Row {
    name: &'static str,
    /// Statements on the server, on the product database, and on the system database; `{app}`, `{sys}`, `{role}`.
    server: &'static str,
    app: &'static str,
    sys: &'static str,
    /// Whether the databases are there and migrated before that.
    made: bool,
    environment: &'static [(&'static str, &'static str)],
    /// What is said by the commands on the product database, the cause and then the cure; empty if they work.
    product: [&'static str; 2],
    /// The same for those on the system database.
    system: [&'static str; 2],
    /// Whether `serve` ends for it; otherwise it mends it, or cannot tell.
    serve_ends: bool,
}

const FINE: Row = Row {
    name: "",
    server: "",
    app: "",
    sys: "",
    made: true,
    environment: &[],
    product: ["", ""],
    system: ["", ""],
    serve_ends: true,
};

const ROLE: &[(&str, &str)] = &[("DB_USER", "{role}"), ("DB_PASSWORD", "x")];

fn table() -> Vec<Row> {
    vec![
        Row {
            name: "unreachable",
            environment: &[("DB_PORT", "{port}")],
            product: ["{port}", "DB_HOST and DB_PORT say where it is"],
            system: ["{port}", "DB_HOST and DB_PORT say where it is"],
            ..FINE
        },
        Row {
            name: "password",
            environment: &[("DB_PASSWORD", "not this one")],
            product: [
                "password authentication failed",
                "set DB_USER and DB_PASSWORD",
            ],
            system: [
                "password authentication failed",
                "set DB_USER and DB_PASSWORD",
            ],
            ..FINE
        },
        Row {
            name: "no_database",
            made: false,
            product: ["{app}", "APP_DB_NAME names it"],
            system: ["{sys}", "SYS_DB_NAME names it"],
            serve_ends: false,
            ..FINE
        },
        Row {
            name: "no_schema",
            made: false,
            server: "CREATE DATABASE {app} TEMPLATE template0 ENCODING 'UTF8'; \
                     CREATE DATABASE {sys} TEMPLATE template0 ENCODING 'UTF8'",
            product: ["has no schema app", "`kodo db migrate` does that"],
            system: [
                "has no tables of the workflow engine",
                "start the service once",
            ],
            serve_ends: false,
            ..FINE
        },
        Row {
            name: "pending",
            app: "ALTER TABLE app.run_steps DROP COLUMN shown, DROP COLUMN view_bytes; \
                  DELETE FROM app.schema_migrations WHERE version = 13",
            product: [
                "1 of 13 migrations are not applied",
                "`kodo db migrate` does that",
            ],
            serve_ends: false,
            ..FINE
        },
        Row {
            name: "record_set_back",
            app: "DELETE FROM app.schema_migrations WHERE version > 6",
            product: [
                "has table app.run_claims, although migration 7, which makes it, is not recorded",
                "restore the database",
            ],
            ..FINE
        },
        Row {
            name: "half_migrated",
            app: "DROP TABLE app.workers",
            product: [
                "has no table app.workers, although migration 1, which makes it, is recorded",
                "restore the database",
            ],
            ..FINE
        },
        Row {
            name: "unfinished",
            app: "UPDATE app.schema_migrations SET success = false WHERE version = 11",
            product: ["did not come to its end", "restore the database"],
            ..FINE
        },
        Row {
            name: "newer",
            app: "INSERT INTO app.schema_migrations VALUES (125, 'later', now(), true, '', 0)",
            product: [
                "has migration 125, which this version of kodo does not know",
                "run the version that wrote it",
            ],
            ..FINE
        },
        Row {
            name: "read_only_app",
            server: "ALTER DATABASE {app} SET default_transaction_read_only = on",
            product: [
                "default_transaction_read_only is on",
                "an operator has to turn it off",
            ],
            ..FINE
        },
        Row {
            name: "read_only_sys",
            server: "ALTER DATABASE {sys} SET default_transaction_read_only = on",
            system: [
                "default_transaction_read_only is on",
                "an operator has to turn it off",
            ],
            ..FINE
        },
        Row {
            name: "connections",
            server: "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'x' CONNECTION LIMIT 0; ALTER ROLE {role} NOSUPERUSER",
            environment: ROLE,
            product: ["too many connections for role", "raise the limit"],
            system: ["too many connections for role", "raise the limit"],
            ..FINE
        },
        Row {
            name: "denied",
            server: "CREATE ROLE {role} LOGIN PASSWORD 'x'",
            environment: ROLE,
            product: ["permission denied", "have to belong to"],
            system: ["permission denied", "have to belong to"],
            ..FINE
        },
        Row {
            name: "encoding_app",
            made: false,
            server: "CREATE DATABASE {app} TEMPLATE template0 ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C'",
            product: ["has the encoding WIN1252", "ENCODING 'UTF8'"],
            system: ["does not exist", "SYS_DB_NAME names it"],
            ..FINE
        },
        Row {
            name: "engine_never",
            sys: "DROP SCHEMA dbos CASCADE",
            system: [
                "has no tables of the workflow engine",
                "start the service once",
            ],
            serve_ends: false,
            ..FINE
        },
        Row {
            name: "engine_half",
            sys: "DROP TABLE dbos.workflow_status CASCADE",
            system: ["has no table workflow_status", "restore the database"],
            serve_ends: false,
            ..FINE
        },
        Row {
            name: "engine_below",
            sys: "UPDATE dbos.dbos_migrations SET version = 50",
            system: [
                "says that it has version 50, and has what version 108 makes",
                "UPDATE dbos.dbos_migrations SET version = 108",
            ],
            serve_ends: false,
            ..FINE
        },
        Row {
            name: "engine_above",
            sys: "UPDATE dbos.dbos_migrations SET version = 126",
            system: ["schema dbos has version 126", "ENGINE_SCHEMA_ACCEPT=126"],
            ..FINE
        },
    ]
}

async fn by_hand(config: &DatabaseConfig, statements: &str) {
    let mut connection = PgConnection::connect_with(&config.connect_options("kodo-it"))
        .await
        .expect("a connection");
    for statement in statements.split(';').map(str::trim) {
        if !statement.is_empty() {
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
                .execute(&mut connection)
                .await
                .expect(statement);
        }
    }
    connection.close().await.expect("closed");
}

/// Commands on the product database, and on the system database. A listing of rows works where only writing does not.
const PRODUCT: [&[&str]; 4] = [
    &["doctor", "--patience", "60"],
    &["db", "status"],
    &["prove"],
    &["artifacts", "list", "run_0"],
];
const SYSTEM: [&[&str]; 4] = [
    &["doctor", "--patience", "60"],
    &["db", "status"],
    &["prove"],
    &["workflow", "list"],
];

#[tokio::test]
async fn every_command_names_the_cause_and_the_cure_of_every_trouble() {
    let mut wrong = Vec::new();
    for row in table() {
        let name = format!("trouble_{}", row.name);
        let databases = match row.made {
            true => TestDatabases::two(&program(), &server(), &name)
                .await
                .expect("databases"),
            false => TestDatabases::none(&server(), &name),
        };
        let (app, sys) = (&databases.databases.app, &databases.databases.system);
        let role = format!("kodo_it_{}_{}", row.name, std::process::id());
        let port = free_port().to_string();
        let filled = |text: &str| {
            text.replace("{app}", &format!("\"{}\"", app.database))
                .replace("{sys}", &format!("\"{}\"", sys.database))
                .replace("{role}", &role)
                .replace("{port}", &port)
        };
        by_hand(&server().with_database("postgres"), &filled(row.server)).await;
        if !row.app.is_empty() {
            by_hand(app, &filled(row.app)).await;
        }
        if !row.sys.is_empty() {
            by_hand(sys, &filled(row.sys)).await;
        }
        let mut environment = databases.databases.environment();
        for (name, value) in row.environment {
            environment.retain(|(given, _)| given != name);
            environment.push(((*name).to_owned(), filled(value)));
        }
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain([
                ("PORT", "0"),
                ("ADMIN_PORT", "0"),
                ("KODO_DATA_DIR", "/tmp"),
                ("DB_CONNECT_TIMEOUT_MS", "1500"),
            ])
            .collect();
        let mut asked: Vec<(&[&str], [&str; 2])> = Vec::new();
        asked.extend(PRODUCT.iter().map(|it| (*it, row.product)));
        asked.extend(SYSTEM.iter().map(|it| (*it, row.system)));
        if row.serve_ends {
            let said = match row.product[0] {
                "" => row.system,
                _ => row.product,
            };
            asked.push((&["serve"], said));
        }
        for (arguments, expected) in asked {
            // The proof of the product database ends before it reaches the other one, and the doctor does not look further
            // than a server that lets it in.
            let one_before = arguments == ["prove"] && !row.product[0].is_empty();
            let of_product = expected == row.product;
            if expected[0].is_empty() || (one_before && !of_product) {
                continue;
            }
            if arguments[0] == "doctor" && !row.product[0].is_empty() && !of_product {
                continue;
            }
            // Reading works there, and the invariants say what is wrong.
            let reads = ["artifacts", "workflow"].contains(&arguments[0]);
            if reads && row.name.starts_with("read_only") {
                continue;
            }
            if arguments == ["prove"]
                && ["newer", "unfinished", "record_set_back"].contains(&row.name)
            {
                continue;
            }
            if row.name == "engine_above" && (reads || arguments == ["prove"]) {
                continue;
            }
            if row.name == "engine_below" && (reads || arguments == ["prove"]) {
                continue;
            }
            if row.name.starts_with("read_only_sys") && arguments == ["prove"] {
                continue;
            }
            if row.name == "encoding_app" && arguments[0] == "artifacts" {
                continue;
            }
            let ended = kodo(arguments, &environment).await;
            let said = format!("{}{}", ended.stdout, ended.stderr);
            let expected = expected.map(|words| filled(words).replace('"', ""));
            let said_plainly = said.replace('"', "");
            if !expected.iter().all(|words| said_plainly.contains(words)) {
                wrong.push(format!("{}: kodo {arguments:?}: {ended:?}", row.name));
            }
        }
        if !row.environment.is_empty() && row.server.contains("ROLE") {
            by_hand(
                &server().with_database("postgres"),
                &format!("DROP ROLE {role}"),
            )
            .await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn a_rebinding_to_a_mistyped_name_is_refused_and_nothing_is_made() {
    let databases = TestDatabases::two(&program(), &server(), "trouble_rebind")
        .await
        .expect("databases");
    for variable in ["SYS_DB_NAME", "APP_DB_NAME"] {
        let mistyped = format!("{}_x", databases.databases.app.database);
        let environment = databases.databases.environment();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| match name == variable {
                true => (variable, mistyped.as_str()),
                false => (name.as_str(), value.as_str()),
            })
            .collect();
        let ended = kodo(&["db", "rebind"], &environment).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains(&mistyped) && ended.stderr.contains(variable),
            "{ended:?}"
        );
        let mut connection = server().connect("kodo-it").await.expect("a connection");
        let made: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(&mistyped)
                .fetch_one(&mut connection)
                .await
                .expect("an answer");
        assert!(!made);
    }
}
