//! Closes a connection without losing the answer.
//!
//! When a socket is closed while bytes that its client sent are unread, or arrive afterwards, TCP answers with a
//! reset, and a reset makes the client's kernel throw away what it had received: the 413 that explains the close. So
//! if a request's body was left unread, the close has two parts: send FIN, then discard what the client still sends
//! until it closes its side, for a bounded time and a bounded amount.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::refused_head::{Exchange, instead_of};

/// How long to go on discarding. A client that reads its answer does so in much less.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// How many bytes to discard. A client that reads the answer only after it has sent everything gets it if its body is
/// no larger.
const LINGER_BYTES: usize = 16 << 20;

/// Whether a request on this connection left bytes of its body unread. The connection then ends with that request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A request body that notes when it is dropped before its end.
pub(crate) struct Watched {
    body: Incoming,
    ended: bool,
    unread: Unread,
}

impl Watched {
    pub(crate) fn new(body: Incoming, unread: Unread) -> Self {
        Self {
            body,
            ended: false,
            unread,
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.unread.set();
        }
    }
}

/// A client's socket that closes in the two parts that the module describes, and that carries our answer where the
/// parser writes its own.
pub(crate) struct LingeringStream {
    socket: TcpStream,
    unread: Unread,
    exchange: Exchange,
    /// Our answer in the place of the parser's, and how much of it is written.
    instead: Option<(Vec<u8>, usize)>,
    closing: Option<Closing>,
}

struct Closing {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl LingeringStream {
    pub(crate) fn new(socket: TcpStream, unread: Unread, exchange: Exchange) -> Self {
        Self {
            socket,
            unread,
            exchange,
            instead: None,
            closing: None,
        }
    }

    /// Whether the parser's refusal was answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.instead.is_some()
    }

    /// Says that what follows on this connection is not read.
    pub(crate) fn leave_unread(&self) {
        self.unread.set();
    }

    /// Writes our answer if these bytes are the parser's; `None` if they are not. All of them count as written once ours
    /// is.
    fn poll_instead(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() && self.exchange.is_quiet() {
            self.instead = instead_of(bytes).map(|answer| (answer, 0));
            // What follows the malformed head is not read.
            self.unread.set();
        }
        let (answer, written) = self.instead.as_mut()?;
        while *written < answer.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &answer[*written..]) {
                Poll::Ready(Ok(some)) => *written += some,
                other => return Some(other),
            }
        }
        Some(Poll::Ready(Ok(bytes.len())))
    }
}

impl AsyncRead for LingeringStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LingeringStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_instead(cx, bytes) {
            Some(written) => written,
            None => Pin::new(&mut self.socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head is one slice.
        let first = slices.iter().find(|slice| !slice.is_empty());
        match first.and_then(|head| self.poll_instead(cx, head)) {
            Some(written) => written,
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper calls this when its buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exchange.flushed();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// hyper polls this after everything is written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            if !this.unread.get() {
                return Poll::Ready(Ok(()));
            }
        }
        let closing = this.closing.get_or_insert_with(|| Closing {
            deadline: Box::pin(tokio::time::sleep(LINGER_TIME)),
            bytes_left: LINGER_BYTES,
        });
        let mut discarded = [0_u8; 8 << 10];
        loop {
            // First, so that a client that never pauses cannot delay it.
            if closing.deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut this.socket).poll_read(cx, &mut buffer));
            let length = buffer.filled().len();
            // The client closed its side, or disconnected.
            if read.is_err() || length == 0 {
                return Poll::Ready(Ok(()));
            }
            closing.bytes_left = closing.bytes_left.saturating_sub(length);
            if closing.bytes_left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
