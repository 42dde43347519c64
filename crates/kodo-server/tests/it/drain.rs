//! The drain: what is still answered, and that the server ends in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use kodo_server::product_router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{Server, booted, config, exchange, read_one, read_to_close};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);

/// Much shorter than that, and long enough for a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Ends the server and says how long that took.
async fn drain(server: Server) -> Duration {
    let started = Instant::now();
    server.shutdown.finish();
    server.task.await.unwrap();
    started.elapsed()
}

async fn product(grace: Duration) -> Server {
    let mut config = config();
    config.body_timeout = LONG;
    Server::start(product_router(&booted(config).app), grace).await
}

#[tokio::test]
async fn idle_connections_are_closed_at_once_and_the_port_is_free() {
    let server = product(LONG).await;
    let address = server.address;
    let mut fresh = server.connect().await;
    let mut kept = server.connect().await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    read_one(&mut kept).await;

    assert!(drain(server).await < SOON);
    assert_eq!(read_to_close(&mut fresh).await, "");
    assert_eq!(read_to_close(&mut kept).await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_that_is_being_served_is_finished() {
    let fixture = booted(config());
    let server = Server::start(product_router(&fixture.app), LONG).await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"POST /crashdemo?wf=slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    fixture.demos.reached.notified().await;
    assert!(drain(server).await < SOON);
    let answer = read_to_close(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_half_sent_body_or_head_does_not_hold_the_exit() {
    // The first answer shows that the server has read the half.
    for (half, said) in [
        (
            "POST /intents HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nPOST /intents HTTP/1.1\r\nhost:",
            "HTTP/1.1 200 OK\r\n",
        ),
    ] {
        let server = product(Duration::from_millis(300)).await;
        let mut socket = server.connect().await;
        socket.write_all(half.as_bytes()).await.unwrap();
        let mut heard = vec![0; said.len()];
        socket.read_exact(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), said);
        socket.write_all(b"{").await.unwrap();
        assert!(drain(server).await < SOON, "{half:?}");
    }
}

#[tokio::test]
async fn while_it_drains_every_new_connection_gets_one_answer_and_then_the_port_is_free() {
    let fixture = booted(config());
    let server = Server::start(product_router(&fixture.app), LONG).await;
    let mut kept = server.connect().await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    read_one(&mut kept).await;
    fixture.engine.begin_drain();
    server.shutdown.begin();
    assert_eq!(read_to_close(&mut kept).await, "", "idle");

    for (request, status, said) in [
        ("GET /healthz", "200 OK", r#"{"ok":true}"#),
        (
            "GET /readyz",
            "503 Service Unavailable",
            r#""draining":"yes""#,
        ),
        (
            "POST /crashdemo?wf=late",
            "503 Service Unavailable",
            r#"{"error":"unavailable"}"#,
        ),
    ] {
        let mut socket = server.connect().await;
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = exchange(&mut socket, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains(said), "{answer}");
    }
    assert!(fixture.demos.started.lock().unwrap().is_empty());
    // A connection without a request, or with half of one, does not delay the end.
    let mut silent = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let address = server.address;
    assert!(drain(server).await < SOON);
    assert_eq!(read_to_close(&mut silent).await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_port_stays_open_for_as_long_as_a_request_from_before_the_drain_takes() {
    let fixture = booted(config());
    let server = Server::start(product_router(&fixture.app), LONG).await;
    let mut early = server.connect().await;
    early
        .write_all(
            b"POST /intents HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        )
        .await
        .unwrap();
    let mut asked = [0; 25];
    early.read_exact(&mut asked).await.unwrap();
    server.shutdown.finish();
    let mut late = server.connect().await;
    let answer = exchange(&mut late, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    early.write_all(b"{}").await.unwrap();
    let answer = read_to_close(&mut early).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    server.task.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_the_exit() {
    let router = Router::new().route("/large", get(async || vec![0_u8; 64 << 20]));
    let server = Server::start(router, Duration::from_millis(300)).await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    socket.read_exact(&mut [0; 100]).await.unwrap();
    assert!(drain(server).await < SOON);
}

#[tokio::test]
async fn a_handler_that_never_answers_does_not_hold_the_exit() {
    let reached = Arc::new(Notify::new());
    let told = Arc::clone(&reached);
    let hang = async move || {
        told.notify_one();
        std::future::pending::<()>().await;
    };
    let router = Router::new().route("/hang", get(hang));
    let server = Server::start(router, Duration::from_millis(300)).await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    reached.notified().await;
    assert!(drain(server).await < SOON);
}
