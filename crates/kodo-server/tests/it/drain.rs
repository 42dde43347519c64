//! How the server ends: politely, and in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use kodo_server::product_router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{Server, booted, config, read_one, read_to_close};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);

/// Much shorter than that, and long enough for a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Ends the server and says how long that took.
async fn drain(server: Server) -> Duration {
    let started = Instant::now();
    server.shutdown.cancel();
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
    fixture.runs.reached.notified().await;
    assert!(drain(server).await < SOON);
    let answer = read_to_close(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_half_sent_body_or_head_does_not_hold_the_exit() {
    for half in [
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
        "POST /intents HTTP/1.1\r\nhost:",
    ] {
        let server = product(Duration::from_millis(300)).await;
        let mut socket = server.connect().await;
        socket.write_all(half.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(drain(server).await < SOON, "{half:?}");
    }
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
