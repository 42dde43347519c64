//! Answers to what hyper's parser refuses.
//!
//! hyper writes those itself, without a body and without an id: 400, 414 and 431; for the beginning of HTTP/2 it writes none. They are recognised where they are
//! written: no request is being answered, and everything before is flushed. So what is written then comes from the parser.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::observe::new_request_id;

/// Nothing is being answered, and every byte of the last answer was handed to the kernel.
const QUIET: u8 = 0;
/// A request arrived, and its answer is not written to its end.
const ANSWERING: u8 = 1;
/// The answer's last byte is in hyper's buffer.
const WRITTEN: u8 = 2;

/// What a connection is doing. A handle: cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exchange(Arc<AtomicU8>);

impl Exchange {
    /// A request arrived.
    pub(crate) fn begin(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    /// hyper's buffer is empty.
    pub(crate) fn flushed(&self) {
        let _ = self
            .0
            .compare_exchange(WRITTEN, QUIET, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether what is written now comes from the parser.
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.load(Ordering::Relaxed) == QUIET
    }
}

/// The body of an answer, which says when it is at its end.
pub(crate) struct Answered {
    body: Body,
    exchange: Exchange,
}

impl Answered {
    pub(crate) fn new(body: Body, exchange: Exchange) -> Self {
        Self { body, exchange }
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.exchange.0.store(WRITTEN, Ordering::Relaxed);
    }
}

/// The answer in the place of hyper's own, with an id, the contract's body and a log line. `None` if these bytes are no
/// such answer.
pub(crate) fn instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(written).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let error = match status {
        StatusCode::BAD_REQUEST => "malformed request",
        StatusCode::URI_TOO_LONG => "uri too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "request header fields too large",
        _ => return None,
    };
    let date = head.lines().find(|line| line.starts_with("date: "))?;
    Some(answer(status, error, &format!("{date}\r\n")))
}

/// The answer where hyper gives none: the beginning of an HTTP/2 connection, which it does not take for a request of a wrong
/// version.
pub(crate) fn unanswered() -> Vec<u8> {
    let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
    answer(status, "http version not supported: this is HTTP/1.1", "")
}

/// An answer to a head that is no request, with its log line. `more` is further lines of its head.
fn answer(status: StatusCode, error: &str, more: &str) -> Vec<u8> {
    let id: HeaderValue = new_request_id();
    let id = id.to_str().unwrap_or_default();
    tracing::info!(
        status = status.as_u16(),
        request.id = id,
        cause = error,
        "request"
    );
    let body = format!(r#"{{"error":"{error}"}}"#);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n{more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
