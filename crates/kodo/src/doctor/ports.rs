//! The two ports of a service: free, in use by a service, or by another program.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::examination::Examination;
use super::finding::Finding;
use super::listeners::who;

/// How much of the whole time whoever has a port may take to say who it is.
const ANSWER: f64 = 0.6;

/// And never longer: `/readyz` answers within this, whatever the database does.
const LONGEST_ANSWER: Duration = Duration::from_secs(6);

/// The ports that the course moves to; the next ones where they are taken, too.
const INSTEAD: [(&str, u16); 2] = [("PORT", 3003), ("ADMIN_PORT", 3005)];

/// Looks at both.
pub(crate) async fn check(exam: &Examination) -> Vec<Finding> {
    let settings = &exam.settings;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (product, admin) = tokio::join!(
        port(exam, "port", "PORT", settings.api.host, settings.api.port),
        port(
            exam,
            "admin port",
            "ADMIN_PORT",
            loopback,
            settings.api.admin_port
        ),
    );
    vec![product, admin]
}

async fn port(
    exam: &Examination,
    check: &'static str,
    variable: &'static str,
    host: IpAddr,
    port: u16,
) -> Finding {
    if port == 0 {
        return Finding::ok(
            check,
            format!("{variable}=0: the system chooses a free one"),
        );
    }
    match TcpListener::bind((host, port)) {
        Ok(_) => Finding::ok(
            check,
            format!("{host}:{port} is free: no service runs there"),
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => busy(exam, check, port).await,
        Err(error) => Finding::problem(
            check,
            format!("{variable}={port}: a service cannot listen on {host}:{port}: {error}"),
            elsewhere(exam),
        ),
    }
}

/// Somebody has the port: who, and is it a service of ours?
async fn busy(exam: &Examination, check: &'static str, port: u16) -> Finding {
    let who = tokio::task::spawn_blocking(move || who(port)).await;
    let who = who.ok().flatten();
    let who = who.unwrap_or_else(|| "a process of another user or container".to_owned());
    let patience = exam.patience.mul_f64(ANSWER).min(LONGEST_ANSWER);
    let said = tokio::time::timeout(patience, readyz(port)).await;
    let said = said.ok().flatten();
    match said {
        Some((200, said)) if said["ready"] == true => match said["logLinesLost"].as_u64() {
            None => Finding::ok(
                check,
                format!("a kodo service has port {port} and is ready: {who}"),
            ),
            Some(lost) => Finding::warn(
                check,
                format!(
                    "a kodo service has port {port} and is ready, and {lost} lines of its log could not be written: \
                     its standard error is closed, full or not read: {who}"
                ),
                Some(exam.next.task("start")),
            ),
        },
        Some((503, said)) if said["checks"].is_object() => Finding::warn(
            check,
            format!(
                "a kodo service has port {port} and is not ready: {}{}: {who}",
                said["checks"],
                match &said["reasons"] {
                    Value::Null => String::new(),
                    reasons => format!(", because {reasons}"),
                }
            ),
            Some(format!("curl -sS http://127.0.0.1:{port}/readyz")),
        ),
        _ => Finding::problem(
            check,
            format!(
                "EADDRINUSE: port {port} is taken by {who}, which does not answer as a kodo service"
            ),
            elsewhere(exam),
        ),
    }
}

/// What `/readyz` of whoever has the port answers: status and JSON; `None` without an HTTP answer.
async fn readyz(port: u16) -> Option<(u16, Value)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = format!("http://127.0.0.1:{port}/readyz").parse().ok()?;
    let answer = client.get(uri).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// A start on ports that are free.
fn elsewhere(exam: &Examination) -> String {
    let taken = [exam.settings.api.port, exam.settings.api.admin_port];
    let mut chosen: Vec<(&str, String)> = Vec::new();
    let mut last = 0;
    for (variable, wanted) in INSTEAD {
        let free = (wanted.max(last + 1)..u16::MAX).find(|port| {
            !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        });
        last = free.unwrap_or(wanted);
        chosen.push((variable, last.to_string()));
    }
    exam.next.task_with(&chosen, "start")
}
