//! Whether the database can be reached, which server it is, and whether that one will do.

use kodo_store::{Store, StoreError};

use super::Patient;
use super::finding::Finding;
use crate::boot::OLDEST_POSTGRES;
use crate::devdb::{self, Probe, Status};

const CHECK: &str = "database";

/// For the checks that look beside each other.
const CONNECTIONS: u32 = 2;

/// From here on a server is close to refusing connections.
const CROWDED_PERCENT: i64 = 90;

/// How far one gets.
pub(crate) enum Reached {
    /// To the product database.
    Product(Store),
    /// To the server, which has no product database.
    Server(Store),
    /// Not even there.
    Nothing,
}

/// Looks at the server, and says how far one gets.
pub(crate) async fn reach(patient: &Patient) -> (Vec<Finding>, Reached) {
    let status = devdb::status(&patient.devdb).await;
    let address = address(patient);
    match status.probe {
        Probe::Postgres => {}
        Probe::Stranger => {
            return (vec![stranger(patient, &address)], Reached::Nothing);
        }
        Probe::Nothing => return (vec![nothing(patient, &address, &status)], Reached::Nothing),
    }
    let app = &patient.settings.app;
    match app.connect("kodo-doctor").await {
        // Dropped and not closed in good order: a second to say farewell is a second less for the checks.
        Ok(_) => {}
        Err(error) => return refused(patient, &address, error),
    }
    // Its connections serve every check that follows.
    let store = Store::new(app, CONNECTIONS);
    let facts = match store.server_facts().await {
        Ok(facts) => facts,
        Err(error) => return refused(patient, &address, error),
    };
    let which = which(patient, &status);
    let what = format!("Postgres {} answers at {address}: {which}", facts.version);
    let mut findings = vec![if facts.major < OLDEST_POSTGRES {
        Finding::problem(
            CHECK,
            format!("{what}; {OLDEST_POSTGRES} or newer is needed"),
            patient
                .next
                .task_with(&[("DB_PORT", other_port(patient))], "db:up"),
        )
    } else {
        Finding::ok(CHECK, what)
    }];
    let (used, most) = facts.connections;
    if used * 100 >= most * CROWDED_PERCENT {
        findings.push(Finding::warn(
            "connections",
            format!("{used} of {most} connections are taken: a start may find none"),
            Some(patient.next.sql(
                "postgres",
                &["SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1 ORDER BY 2 DESC".to_owned()],
            )),
        ));
    }
    (findings, Reached::Product(store))
}

/// Whoever is there accepts, or swallows packets, and says nothing.
pub(crate) fn silent(patient: &Patient, limit: std::time::Duration) -> Finding {
    let address = address(patient);
    Finding::problem(
        CHECK,
        format!("no answer from {address} within {limit:?}: DB_HOST and DB_PORT say where it is"),
        patient.next.kodo("db status"),
    )
}

fn address(patient: &Patient) -> String {
    format!(
        "{}:{}",
        patient.settings.app.host, patient.settings.app.port
    )
}

/// Another port than the configured one, for a server of our own beside somebody else's.
fn other_port(patient: &Patient) -> String {
    let taken = patient.settings.app.port;
    let free = (54330..u16::MAX)
        .find(|port| *port != taken && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or(54330).to_string()
}

fn stranger(patient: &Patient, address: &str) -> Finding {
    let who = super::listeners::listeners(patient.settings.app.port);
    let who: Vec<String> = who
        .iter()
        .map(|it| format!(", process {} ({})", it.pid, it.command))
        .collect();
    Finding::problem(
        CHECK,
        format!(
            "something that is not Postgres listens at {address}{}",
            who.join("")
        ),
        patient
            .next
            .task_with(&[("DB_PORT", other_port(patient))], "db:up"),
    )
}

fn nothing(patient: &Patient, address: &str, status: &Status) -> Finding {
    match &status.private {
        Some(private) => Finding::problem(
            CHECK,
            format!(
                "nothing answers at {address}; the private cluster in {} runs on port {}, process {}",
                private.data_dir.display(),
                private.port,
                private.pid
            ),
            patient
                .next
                .task_with(&[("DB_PORT", private.port.to_string())], "db:up"),
        ),
        None => Finding::problem(
            CHECK,
            format!("nothing answers at {address}"),
            patient.next.task("db:up"),
        ),
    }
}

/// A Postgres is there and does not let us in, or not yet.
fn refused(patient: &Patient, address: &str, error: StoreError) -> (Vec<Finding>, Reached) {
    let settings = &patient.settings;
    let next = &patient.next;
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

/// Whose server it is.
fn which(patient: &Patient, status: &Status) -> String {
    match &status.private {
        Some(private) if private.port == patient.settings.app.port => format!(
            "the private cluster in {}, process {}",
            private.data_dir.display(),
            private.pid
        ),
        _ if status.docker => "docker compose's service db".to_owned(),
        _ => "a server that was not started from here".to_owned(),
    }
}
