//! Whether the database can be reached, which server it is, and whether its version is supported.

use kodo_store::{Cause, DatabaseConfig, Part, Store, StoreError};

use super::examination::Examination;
use super::finding::Finding;
use super::listeners::who;
use crate::boot::OLDEST_POSTGRES;
use crate::devdb::{self, Probe, Status};
use crate::trouble;

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
        Err(error) => return refused(exam, &address, error).await,
    }
    // Its connections serve every check that follows.
    let store = Store::new(app, CONNECTIONS);
    let facts = match store.server_facts().await {
        Ok(facts) => facts,
        Err(error) => return refused(exam, &address, error).await,
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
    // Told before the checks that fail for it.
    if let Some(trouble) = app.trouble(Part::Product).await {
        let check = match trouble.cause {
            Cause::Encoding => Some("encoding"),
            Cause::Pooler | Cause::Connections | Cause::Denied => Some("sessions"),
            _ => None,
        };
        findings.extend(check.map(|check| exam.problem(check, Part::Product, &trouble)));
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
            format!("nothing answers at {address}: DB_HOST and DB_PORT say where it is"),
            exam.next.task("db:up"),
        ),
    }
}

/// The findings for a Postgres that refuses the connection.
async fn refused(exam: &Examination, address: &str, error: StoreError) -> (Vec<Finding>, Reached) {
    let app = &exam.settings.app;
    let trouble = trouble::of(&exam.settings, Part::Product, &error).await;
    let next = exam.next_for(Part::Product, &trouble);
    let (what, reached) = match trouble.cause {
        Cause::NoDatabase => {
            let server = Store::new(&app.with_database("postgres"), CONNECTIONS);
            let what = format!("has no database {}: {}", app.database, trouble.cure);
            (what, Reached::Server(server))
        }
        Cause::Login => (
            format!("does not let {} in: {trouble}", app.user),
            Reached::Nothing,
        ),
        _ => (format!("cannot be used: {trouble}"), Reached::Nothing),
    };
    let what = format!("a Postgres answers at {address}, and {what}");
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
