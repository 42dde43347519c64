//! Behaviour that only a real socket shows: limits while a body is being sent, and how connections end.

use std::time::{Duration, Instant};

use kodo_server::{MAX_BODY_BYTES, product_router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Server, booted, config, exchange, read_one, read_to_close};

const TOO_LARGE: &str = r#"{"error":"payload too large"}"#;

fn post(body_length: usize) -> Vec<u8> {
    format!("POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: {body_length}\r\n\r\n")
        .into_bytes()
}

#[tokio::test]
async fn a_client_that_sends_everything_before_it_reads_still_gets_its_413() {
    let server = Server::product().await;
    for size in [MAX_BODY_BYTES + 1, 2 * MAX_BODY_BYTES, 12 * MAX_BODY_BYTES] {
        let mut request = post(size);
        request.resize(request.len() + size, b' ');
        let answer = exchange(&mut server.connect().await, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains("\r\nx-request-id: "), "{answer}");
        assert!(answer.ends_with(TOO_LARGE), "{answer}");
    }
}

#[tokio::test]
async fn a_chunked_body_is_refused_where_it_crosses_the_limit() {
    let server = Server::product().await;
    let mut request =
        b"POST /intents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        request.extend_from_slice(b"10000\r\n");
        request.resize(request.len() + 0x10000, b' ');
        request.extend_from_slice(b"\r\n");
    }
    // No last chunk: the answer does not wait for it.
    let answer = exchange(&mut server.connect().await, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.ends_with(TOO_LARGE),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_without_end_is_not_listened_to_for_long() {
    let server = Server::product().await;
    let mut socket = server.connect().await;
    socket.write_all(&post(usize::MAX >> 2)).await.unwrap();
    let started = Instant::now();
    let garbage = vec![b' '; 1 << 16];
    let mut sent = 0;
    while socket.write_all(&garbage).await.is_ok() {
        sent += garbage.len();
        assert!(sent < 256 << 20, "the server goes on reading");
    }
    assert!(started.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read() {
    let server = Server::product().await;
    let mut request = post(MAX_BODY_BYTES);
    request.resize(request.len() + MAX_BODY_BYTES, b' ');
    let mut socket = server.connect().await;
    socket.write_all(&request).await.unwrap();
    let answer = read_one(&mut socket).await;
    assert!(answer.ends_with(r#"{"error":"invalid json"}"#), "{answer}");
}

#[tokio::test]
async fn who_asks_before_sending_too_much_is_not_told_to_go_on() {
    let server = Server::product().await;
    let head = |length: usize| {
        format!(
            "POST /intents HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut socket = server.connect().await;
    socket
        .write_all(head(MAX_BODY_BYTES + 1).as_bytes())
        .await
        .unwrap();
    let answer = read_one(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let mut socket = server.connect().await;
    socket.write_all(head(2).as_bytes()).await.unwrap();
    assert_eq!(read_one(&mut socket).await, "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"[]").await.unwrap();
    let answer = read_one(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_stops_halfway_is_a_408() {
    let server = Server::product().await;
    let mut request = post(100);
    request.extend_from_slice(b"{\"goal\":");
    let answer = exchange(&mut server.connect().await, &request).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.ends_with(r#"{"error":"request timeout"}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_no_chunks_is_a_400() {
    let server = Server::product().await;
    let mut socket = server.connect().await;
    socket.write_all(&post(100)).await.unwrap();
    socket.shutdown().await.unwrap();
    let answer = read_to_close(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");

    let broken = b"POST /intents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let answer = exchange(&mut server.connect().await, broken).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        answer.ends_with(r#"{"error":"invalid request body"}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn a_refusal_that_left_the_body_unread_closes_and_is_heard() {
    let server = Server::product().await;
    let length = 3 * MAX_BODY_BYTES;
    let mut request =
        format!("POST /nope HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    request.resize(request.len() + length, b' ');
    let answer = exchange(&mut server.connect().await, &request).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn one_connection_carries_many_requests_also_after_errors() {
    let server = Server::product().await;
    let mut socket = server.connect().await;
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
        ("GET /nope HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        (
            "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]",
            "400",
        ),
        (
            "POST /intents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST /crashdemo?wf=x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
            "202",
        ),
        ("DELETE /runs/x HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET http://x/healthz HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
    ] {
        socket.write_all(request.as_bytes()).await.unwrap();
        let answer = read_one(&mut socket).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        assert!(answer.contains("\r\nx-request-id: "), "{request}: {answer}");
        assert!(
            !answer.contains("\r\nconnection: close"),
            "{request}: {answer}"
        );
    }
}

#[tokio::test]
async fn head_sends_no_body_over_the_wire() {
    let server = Server::product().await;
    let request = b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(&mut server.connect().await, request).await;
    assert!(answer.contains("\r\ncontent-length: 11\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_still_gets_its_answer() {
    let server = Server::product().await;
    let mut socket = server.connect().await;
    let request = b"POST /crashdemo?wf=slow HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write_all(request).await.unwrap();
    socket.shutdown().await.unwrap();
    let answer = read_to_close(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
}

#[tokio::test]
async fn an_idle_client_that_closes_its_side_is_let_go_at_once() {
    let server = Server::product().await;
    let mut socket = server.connect().await;
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    read_one(&mut socket).await;
    let started = Instant::now();
    socket.shutdown().await.unwrap();
    assert_eq!(read_to_close(&mut socket).await, "");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// What the parser refuses is answered as everything else is: with an id, and in the shape of the contract's errors.
#[tokio::test]
async fn what_the_parser_refuses_has_an_id_and_an_error_and_is_heard() {
    let server = Server::product().await;
    let large = "x".repeat(70_000);
    let wide = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: {large}\r\n\r\n");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    let fine = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (request, status, error) in [
        (
            "GET / HTTP/9.9\r\n\r\n",
            "400 Bad Request",
            "malformed request",
        ),
        ("no request\r\n\r\n", "400 Bad Request", "malformed request"),
        (
            "GET / HTTP/1.1\r\na b: c\r\n\r\n",
            "400 Bad Request",
            "malformed request",
        ),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            "400 Bad Request",
            "malformed request",
        ),
        (
            &wide,
            "431 Request Header Fields Too Large",
            "request header fields too large",
        ),
        (
            &many,
            "431 Request Header Fields Too Large",
            "request header fields too large",
        ),
    ] {
        // Also behind an answer on the same connection.
        for before in [0, 1] {
            let mut socket = server.connect().await;
            for _ in 0..before {
                socket.write_all(fine.as_bytes()).await.unwrap();
                read_one(&mut socket).await;
            }
            let answer = exchange(&mut socket, request.as_bytes()).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{answer}"
            );
            let mut shown: Vec<&str> = head.lines().skip(1).collect();
            shown.retain(|line| !line.starts_with("date: ") && !line.starts_with("x-request-id: "));
            let length = format!("content-length: {}", body.len());
            assert_eq!(
                shown,
                [
                    "content-type: application/json",
                    "connection: close",
                    &length
                ],
                "{answer}"
            );
            assert!(head.contains("\r\nx-request-id: "), "{answer}");
            assert_eq!(body, format!(r#"{{"error":"{error}"}}"#));
        }
    }
}

#[tokio::test]
async fn a_host_that_is_missing_repeated_or_malformed_is_refused_on_every_path() {
    let server = Server::product().await;
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nHost: x\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a/b\r\n", 400),
        ("GET /none HTTP/1.1\r\n", 400),
        ("PUT /intents HTTP/1.1\r\n", 400),
        ("GET /healthz HTTP/1.0\r\nhost: x\r\nhost: y\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost:\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a:99999\r\n", 400),
        ("GET http://a:99999/healthz HTTP/1.1\r\nhost: a\r\n", 400),
        ("GET http://x/healthz HTTP/1.1\r\nhost: another\r\n", 200),
        ("GET /healthz HTTP/1.1\r\nhost: [::1]:3001\r\n", 200),
        ("GET /healthz HTTP/1.0\r\n", 200),
    ] {
        let mut socket = server.connect().await;
        let request = format!("{request}connection: close\r\n\r\n");
        let answer = exchange(&mut socket, request.as_bytes()).await;
        let begins = answer.split(' ').nth(1).unwrap();
        assert_eq!(begins, status.to_string(), "{request}: {answer}");
        assert!(answer.contains("\r\nx-request-id: "), "{answer}");
        if status == 400 {
            assert!(
                answer.contains(r#"{"error":"Host must be one header"#),
                "{answer}"
            );
        }
    }
}

/// Idle sockets cost those who open them their places, and nobody else anything.
#[tokio::test]
async fn idle_connections_give_way_to_new_ones_and_a_request_that_is_being_answered_does_not() {
    let app = booted(config());
    let server = Server::bounded(product_router(&app.app), Duration::from_secs(5), 8).await;
    let mut busy = server.connect().await;
    let request = b"POST /crashdemo?wf=slow HTTP/1.1\r\nhost: x\r\n\r\n";
    busy.write_all(request).await.unwrap();
    app.demos.reached.notified().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(server.connect().await);
    }
    // Kept alive, and idle since its answer.
    let mut socket = server.connect().await;
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(read_one(&mut socket).await.starts_with("HTTP/1.1 200 "));
    assert!(read_one(&mut busy).await.starts_with("HTTP/1.1 202 "));
    // The first of them are closed, without a byte.
    assert_eq!(idle[0].read(&mut [0]).await.unwrap_or(0), 0);
}
