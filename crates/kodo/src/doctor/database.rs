//! Whether the database can be reached, which server it is, and whether its version is supported.

use kodo_store::{DatabaseConfig, Store, StoreError};

use super::examination::Examination;
use super::finding::Finding;
use super::listeners::who;
use crate::boot::OLDEST_POSTGRES;
use crate::devdb::{self, Probe, Status};

const CHECK: &str = "database";

/// Connections for the checks, which run at the same time.
const CONNECTIONS: u32 = 2;

/// The share of connections in use, in percent, from which a server is close to refusing more.
const CROWDED_PERCENT: i64 = 90;

/// What can be connected to.
pub(crate) enum Reached {
    /// The product database.
    Product(Store),
    /// The server, which has no product database.
    Server(Store),
    /// Neither.
    Nothing,
}

/// Looks at the server. Returns its findings and what can be connected to.
pub(crate) async fn reach(exam: &Examination) -> (Vec<Finding>, Reached) {
    let status = devdb::status(&exam.devdb).await;
    let address = address(exam);
    match status.probe {
        Probe::Postgres => {}
        Probe::Stranger => {
            return (vec![stranger(exam, &address)], Reached::Nothing);
        }
        Probe::Nothing => return (vec![nothing(exam, &address, &status)], Reached::Nothing),
    }
    let app = &exam.settings.app;
    match app.connect("kodo-doctor").await {
        // Dropped and not closed: waiting for a clean end would take time from the checks.
        Ok(_) => {}
        Err(error) => return refused(exam, &address, error),
    }
    // Its connections serve every check that follows.
    let store = Store::new(app, CONNECTIONS);
    let facts = match store.server_facts().await {
        Ok(facts) => facts,
        Err(error) => return refused(exam, &address, error),
    };
    let which = which(exam, &status);
    let what = format!("Postgres {} answers at {address}: {which}", facts.version);
    let mut findings = vec![if facts.major < OLDEST_POSTGRES {
        Finding::problem(
            CHECK,
            format!("{what}; {OLDEST_POSTGRES} or newer is needed"),
            exam.next
                .task_with(&[("DB_PORT", other_port(exam))], "db:up"),
        )
    } else {
        Finding::ok(CHECK, what)
    }];
    if facts.encoding != "UTF8" {
        findings.push(Finding::problem(
            "encoding",
            format!(
                "database {} has the encoding {}, which cannot hold every text: a service refuses it",
                app.database, facts.encoding
            ),
            exam.next
                .task_with(&[("APP_DB_NAME", format!("{}_utf8", app.database))], "db:migrate"),
        ));
    }
    let product = read_only(exam, app).await;
    let system = read_only(exam, &exam.settings.system).await;
    // A standby is the whole server, and told once.
    let both = product.is_some() && app.database == exam.settings.system.database;
    findings.extend(system.filter(|found| !both && !found.what.contains("standby")));
    findings.extend(product);
    for (whose, used, most) in facts.connections {
        if used * 100 < most * CROWDED_PERCENT {
            continue;
        }
        findings.push(Finding::warn(
            "connections",
            format!("{used} of {most} connections of {whose} are taken: a start may find none"),
            Some(exam.next.sql(
                "postgres",
                &["SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1 ORDER BY 2 DESC".to_owned()],
            )),
        ));
    }
    (findings, Reached::Product(store))
}

/// The finding for a database that cannot be written to.
async fn read_only(exam: &Examination, config: &DatabaseConfig) -> Option<Finding> {
    let mut connection = config.connect("kodo-doctor").await.ok()?;
    let why = kodo_store::read_only(&mut connection).await.ok()??;
    let name = &config.database;
    Some(Finding::problem(
        "read-only",
        format!("database {name} cannot be written to: {why}"),
        exam.next.sql(
            name,
            &[
                "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')"
                    .to_owned(),
            ],
        ),
    ))
}

/// The finding for an address that accepts connections or drops packets, and answers nothing.
pub(crate) fn silent(exam: &Examination, limit: std::time::Duration) -> Finding {
    let address = address(exam);
    Finding::problem(
        CHECK,
        format!("no answer from {address} within {limit:?}: DB_HOST and DB_PORT say where it is"),
        exam.next.kodo("db status"),
    )
}

fn address(exam: &Examination) -> String {
    exam.settings.app.address()
}

/// A free port for a server of our own, beside the one on the configured port.
fn other_port(exam: &Examination) -> String {
    let taken = exam.settings.app.port;
    let free = (54330..u16::MAX)
        .find(|port| *port != taken && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or(54330).to_string()
}

fn stranger(exam: &Examination, address: &str) -> Finding {
    let who = who(exam.settings.app.port).map(|who| format!(", {who}"));
    Finding::problem(
        CHECK,
        format!(
            "something that is not Postgres listens at {address}{}",
            who.unwrap_or_default()
        ),
        exam.next
            .task_with(&[("DB_PORT", other_port(exam))], "db:up"),
    )
}

fn nothing(exam: &Examination, address: &str, status: &Status) -> Finding {
    match &status.private {
        Some(private) => Finding::problem(
            CHECK,
            format!(
                "nothing answers at {address}; the private cluster in {} runs on port {}, process {}",
                private.data_dir.display(),
                private.port,
                private.pid
            ),
            exam.next
                .task_with(&[("DB_PORT", private.port.to_string())], "db:up"),
        ),
        None => Finding::problem(
            CHECK,
            format!("nothing answers at {address}"),
            exam.next.task("db:up"),
        ),
    }
}

/// The findings for a Postgres that refuses the connection.
fn refused(exam: &Examination, address: &str, error: StoreError) -> (Vec<Finding>, Reached) {
    let settings = &exam.settings;
    let next = &exam.next;
    let code = match &error {
        StoreError::Unavailable(sqlx::Error::Database(error))
        | StoreError::Refused(sqlx::Error::Database(error)) => {
            error.code().map(|code| code.into_owned())
        }
        _ => None,
    };
    let mut reached = Reached::Nothing;
    let (what, next) = match code.as_deref() {
        Some("3D000") => {
            reached = Reached::Server(Store::new(
                &settings.app.with_database("postgres"),
                CONNECTIONS,
            ));
            let what = format!(
                "a Postgres answers at {address}, and has no database {}",
                settings.app.database
            );
            (what, next.task("db:migrate"))
        }
        Some("28P01" | "28000") => (
            format!(
                "a Postgres answers at {address}, and does not let {} in (DB_USER, DB_PASSWORD): {error}",
                settings.app.user
            ),
            "read -rsp 'password: ' DB_PASSWORD && export DB_PASSWORD".to_owned(),
        ),
        Some("53300") => (
            format!(
                "a Postgres answers at {address}, and gives {} no connection: {error}",
                settings.app.user
            ),
            next.sql(
                "postgres",
                &["SELECT rolname, rolconnlimit, count(pid) FROM pg_roles LEFT JOIN pg_stat_activity ON usename = rolname \
                   GROUP BY 1, 2 HAVING count(pid) > 0"
                    .to_owned()],
            ),
        ),
        Some("57P03") => (
            format!("the Postgres at {address} is starting up or shutting down: {error}"),
            next.task("db:up"),
        ),
        _ => (
            format!("a Postgres answers at {address}, and cannot be used: {error}"),
            next.kodo("db status"),
        ),
    };
    (vec![Finding::problem(CHECK, what, next)], reached)
}

/// Who started the server.
fn which(exam: &Examination, status: &Status) -> String {
    match &status.private {
        Some(private) if private.port == exam.settings.app.port => format!(
            "the private cluster in {}, process {}",
            private.data_dir.display(),
            private.pid
        ),
        _ if status.docker => "docker compose's service db".to_owned(),
        _ => "a server that was not started from here".to_owned(),
    }
}
