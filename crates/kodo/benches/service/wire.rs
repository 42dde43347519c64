//! One keep-alive HTTP connection, with as little in it as works.
//!
//! Bench and service share the machine, so what the client costs is taken from the service. This one sends
//! bytes that were put together before and reads an answer with a known length, nothing else: a full client
//! costs more than the service's own share of `GET /healthz`.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request, ready to be sent as often as needed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and path, for messages.
    pub(crate) name: String,
    bytes: Vec<u8>,
}

impl Request {
    /// `GET path`.
    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path, "")
    }

    /// `POST path` with a body.
    pub(crate) fn post(path: &str, body: &str) -> Self {
        Self::new("POST", path, body)
    }

    fn new(method: &str, path: &str, body: &str) -> Self {
        let length = body.len();
        Self {
            name: format!("{method} {path}"),
            bytes: format!(
                "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
            )
            .into_bytes(),
        }
    }
}

/// A connection to a service on loopback.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .with_context(|| format!("connecting to port {port}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and returns the body of the answer, which must be a success.
    pub(crate) async fn ask(&mut self, request: &Request) -> anyhow::Result<&[u8]> {
        let (status, body) = self.try_ask(request).await?;
        if !(200..300).contains(&status) {
            let text = String::from_utf8_lossy(body);
            bail!("{} answered {status}: {text}", request.name);
        }
        Ok(body)
    }

    /// Sends a request and returns status and body of the answer.
    pub(crate) async fn try_ask(&mut self, request: &Request) -> anyhow::Result<(u16, &[u8])> {
        self.stream
            .write_all(&request.bytes)
            .await
            .with_context(|| request.name.clone())?;
        self.answer.clear();
        loop {
            let read = self
                .stream
                .read_buf(&mut self.answer)
                .await
                .with_context(|| request.name.clone())?;
            ensure!(read > 0, "{}: the connection ended", request.name);
            let Some(head_end) = find(&self.answer, b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(&self.answer[..head_end])?;
            let (body, length) = (head_end + 4, content_length(head)?);
            if self.answer.len() < body + length {
                continue;
            }
            let status = head.get(9..12).context("no status")?.parse()?;
            return Ok((status, &self.answer[body..]));
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn content_length(head: &str) -> anyhow::Result<usize> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .with_context(|| format!("no content-length in {head:?}"))?
        .1
        .trim()
        .parse()
        .context("content-length")
}
