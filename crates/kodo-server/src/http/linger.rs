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
            self.unread.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A client's socket that closes in the two parts that the module describes.
pub(crate) struct LingeringStream {
    socket: TcpStream,
    unread: Unread,
    closing: Option<Closing>,
}

struct Closing {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl LingeringStream {
    pub(crate) fn new(socket: TcpStream, unread: Unread) -> Self {
        Self {
            socket,
            unread,
            closing: None,
        }
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
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
