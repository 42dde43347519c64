//! Requests as no client library sends them: each gets one answer with an id, or none that could be taken for another's.

use kodo_server::product_routes;
use tokio::io::AsyncWriteExt;

use crate::support::{Server, exchange, read_one, read_to_close};

/// A request and the status that it gets.
const TABLE: &[(&str, u16)] = &[
    // Request lines.
    ("GET /healthz\r\nhost: x\r\n\r\n", 400),
    ("GET  /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    (" GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("GET /healthz HTTP/1.1 \r\nhost: x\r\n\r\n", 400),
    ("GET /healthz http/1.1\r\nhost: x\r\n\r\n", 400),
    ("GET /healthz HTTP/1.2\r\nhost: x\r\n\r\n", 400),
    ("GET /healthz HTTP/0.9\r\nhost: x\r\n\r\n", 400),
    ("GET /healthz HTTP/3.0\r\nhost: x\r\n\r\n", 400),
    ("GET healthz HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("G@T /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("get /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    ("BREW /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    ("\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("PRI * HTTP/2.0\r\nhost: x\r\n\r\n", 400),
    ("\x16\x03\x01\x02", 400),
    // Header fields.
    ("GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n", 400),
    ("GET /healthz HTTP/1.1\r\n host: x\r\n\r\n", 400),
    (
        "GET /healthz HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        400,
    ),
    ("GET /healthz HTTP/1.1\r\nhost: x\r\n: b\r\n\r\n", 400),
    ("GET /healthz HTTP/1.1\r\nhost: x\r\na\r\n\r\n", 400),
    ("GET /healthz HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n", 400),
    // Lengths of bodies.
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n[]",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 2, 2\r\n\r\n[]",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 0x2\r\n\r\n[]",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: \r\n\r\n[]",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n[]",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n[] ",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        400,
    ),
    (
        "POST /intents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        400,
    ),
    (
        "POST /intents HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        400,
    ),
    // Targets.
    ("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET * HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET https://x/healthz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    ("GET http:///healthz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("GET x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("CONNECT /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    ("GET /%68ealthz HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET /healthz/ HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET //healthz HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET /../healthz HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET /healthz%00 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET /healthz#x HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    ("GET /healthz?%zz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
    ("GET /marks?wf=%zz HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    ("GET /runs/%ff HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    ("GET /runs/%zz HTTP/1.1\r\nhost: x\r\n\r\n", 503),
];

/// Asks for the end of the connection, so that the whole answer is read.
fn closing(request: &str) -> String {
    request.replacen("host: x\r\n", "host: x\r\nconnection: close\r\n", 1)
}

#[tokio::test]
async fn odd_requests_get_one_answer_each_with_an_id() {
    let server = Server::product().await;
    let mut wrong = Vec::new();
    for (request, status) in TABLE {
        let mut socket = server.connect().await;
        socket.write_all(closing(request).as_bytes()).await.unwrap();
        let _ = socket.shutdown().await;
        let answer = read_to_close(&mut socket).await;
        let one = answer.matches("HTTP/1.1 ").count() == 1;
        let id = answer.contains("\r\nx-request-id: ");
        let got = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        if !one || !id || got != status.to_string() {
            wrong.push(format!("{status} expected for {request:?}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_length_beside_chunks_never_lets_a_second_request_in() {
    let server = Server::product().await;
    for request in [
        "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /intents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let answer = exchange(&mut server.connect().await, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(!answer.contains(r#"{"ok":true}"#), "{answer}");
    }
}

#[tokio::test]
async fn requests_that_are_sent_without_waiting_are_answered_in_order() {
    let server = Server::product().await;
    let mut socket = server.connect().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let post = "POST /intents HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]";
    let all = [
        get("/healthz"),
        get("/none"),
        post.to_owned(),
        get("/healthz"),
    ]
    .concat();
    socket.write_all(all.as_bytes()).await.unwrap();
    for status in ["200", "404", "400", "200"] {
        let answer = read_one(&mut socket).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn head_is_get_without_a_body_on_every_route_and_refused_elsewhere() {
    let server = Server::product().await;
    let routes = product_routes();
    for route in &routes {
        let path = route.path.replace(['{', '}'], "");
        let readable = routes
            .iter()
            .any(|other| other.path == route.path && other.method == "GET");
        let ask = async |method: &str| {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            exchange(&mut server.connect().await, request.as_bytes()).await
        };
        let head = ask("HEAD").await;
        let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(head.ends_with("\r\n\r\n"), "{path}: {head}");
        match readable {
            true => assert_eq!(status(&head), status(&ask("GET").await), "{path}"),
            false => assert_eq!(status(&head), "405", "{path}: {head}"),
        }
    }
}
