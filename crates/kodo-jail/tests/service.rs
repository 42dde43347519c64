//! A program that stays: talked with by the service, and by nobody else, for as long as the service wants it.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use kodo_jail::{Helper, Jail, JailConfig, JailedService, JailedServiceSpec};
use kodo_sandbox::{JobSpec, SandboxError};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[path = "shared/ordinary_user.rs"]
mod ordinary_user;

const PROBE: &str = env!("CARGO_BIN_EXE_kodo-jail-probe");

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(
    helper: &[&str],
    program: PathBuf,
    arguments: &[&str],
    port: u16,
) -> Result<JailedService, SandboxError> {
    let words: Vec<OsString> = helper.iter().map(Into::into).collect();
    let jail = Jail::new(JailConfig {
        helper: Helper::program(ordinary_user::helper(), words),
        ..JailConfig::default()
    });
    let job = JobSpec::new(arguments.iter().copied());
    jail.start_service(JailedServiceSpec { job, program, port })
        .await
}

/// A port that is free on this machine, and one that is taken.
fn ports() -> (u16, u16, TcpListener) {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (a, b, taken) = (bind(), bind(), bind());
    let port = |it: &TcpListener| it.local_addr().unwrap().port();
    (port(&a), port(&b), taken)
}

/// What a program in there says of a port of this machine; the program, and its connection to the service.
async fn asked(helper: &[&str]) -> (String, JailedService, BufReader<TcpStream>, u16) {
    let (own, service, outside) = ports();
    let outside_port = outside.local_addr().unwrap().port().to_string();
    let (own_port, service_port) = (own.to_string(), service.to_string());
    let arguments = ["hold", "reside", &own_port, &service_port, &outside_port];
    let program = ordinary_user::helper();
    let service = start(helper, program, &arguments, service).await.unwrap();
    let stream = timeout(PATIENCE, service.accept()).await.unwrap().unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    use tokio::io::AsyncBufReadExt;
    timeout(PATIENCE, stream.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    (line.trim().to_owned(), service, stream, own)
}

#[tokio::test]
async fn the_service_talks_with_it_both_ways_and_it_reaches_nobody_else() {
    let (said, service, _stream, own) = asked(&["jail-init"]).await;
    assert_eq!(said, "held");
    let mut greeting = String::new();
    for _ in 0..3 {
        greeting.clear();
        let mut caller = timeout(PATIENCE, service.connect(own))
            .await
            .unwrap()
            .unwrap();
        caller.read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "hello");
    }
    // To this machine there is no such port.
    assert!(TcpStream::connect(("127.0.0.1", own)).await.is_err());
}

#[tokio::test]
async fn without_a_network_of_its_own_it_would_reach_others() {
    let (said, ..) = asked(&["weakened", "net-namespace"]).await;
    assert_eq!(said, "reached");
}

#[tokio::test]
async fn dropping_it_ends_it() {
    let (_, service, mut stream, _) = asked(&["jail-init"]).await;
    drop(service);
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(ended.is_err() || rest.is_empty());
}

#[tokio::test]
async fn how_it_ended_and_what_it_last_said_is_told() {
    let shell = PathBuf::from("/bin/sh");
    let arguments = ["-c", "echo its last words >&2; exit 7"];
    let service = start(&["jail-init"], shell, &arguments, 4097)
        .await
        .unwrap();
    let end = timeout(PATIENCE, service.ended()).await.unwrap();
    assert!(
        end.contains("exited with 7") && end.contains("its last words"),
        "{end}"
    );
    assert!(service.connect(1).await.is_err());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_no_start() {
    let nowhere = PathBuf::from("/nowhere/program");
    let error = start(&["jail-init"], nowhere, &[], 4097).await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    ordinary_user::run_this_suite("all_of_it_holds_for_an_ordinary_user");
}
