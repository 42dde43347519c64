//! HTTP byte by byte, for what a decent client does not send.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bound on every wait for the other side. Reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub struct Raw(BufReader<TcpStream>);

/// An answer as it came.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl RawAnswer {
    /// A header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(sent, _)| sent == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// Status and body.
    pub fn shown(&self) -> String {
        format!("{} {}", self.status, self.body)
    }
}

impl Raw {
    pub async fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("a connection");
        socket.set_nodelay(true).expect("nodelay");
        Self(BufReader::new(socket))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.0.get_mut().write_all(bytes.as_ref()))
            .await
            .expect("the service takes bytes")
            .expect("the bytes are sent");
    }

    /// Says that nothing more will come.
    pub async fn half_close(&mut self) {
        self.0.get_mut().shutdown().await.expect("a half close");
    }

    /// The next answer, an interim one (`100 Continue`) included.
    pub async fn answer(&mut self) -> RawAnswer {
        timeout(PATIENCE, self.read_answer())
            .await
            .expect("an answer in time")
    }

    /// Whether the service has closed the connection without another byte.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the service closes")
            .is_ok_and(|length| length == 0)
    }

    async fn read_answer(&mut self) -> RawAnswer {
        let status = self.line().await;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut answer = RawAnswer {
            status: status.expect("a status line"),
            headers: Vec::new(),
            body: String::new(),
        };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let value = value.trim().to_owned();
            answer.headers.push((name.to_ascii_lowercase(), value));
        }
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("the body");
        answer.body = String::from_utf8(body).expect("UTF-8");
        answer
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("a line");
        line.trim_end().to_owned()
    }
}

/// A whole request: head with the given header lines, then the body as it is.
pub fn request(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The head of a `POST` whose body has this many bytes.
pub fn post_head(path: &str, length: usize) -> Vec<u8> {
    request("POST", path, &[&format!("Content-Length: {length}")], b"")
}

/// Some bytes in chunks of at most this size, with the last chunk.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
