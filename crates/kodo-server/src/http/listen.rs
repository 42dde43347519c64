//! The connection loop: accepts, serves and, on shutdown, drains connections.
//!
//! hyper-util's `GracefulShutdown` is not used: it asks a connection to close before it polls it, and hyper then closes
//! one whose request has arrived and is unread. Here each connection is polled first, so such a request is answered.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::crowd::{Crowd, Place};
use super::linger::{LingeringStream, Unread, Watched};
use super::refused_head::{Answered, unanswered};

/// How long a client may take to send the head of a request; also how long a kept-alive connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes; also the largest size of a connection's buffer. The longest request target
/// that the parser accepts at all is just below.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The longest pause after `accept` failed.
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long aborted connections may take to end: each ends at its next poll.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// How long a connection that was accepted during the drain may take after the port is closed. It carries a probe, a
/// request that is refused, or no complete request.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// The shutdown of all servers of a process, in two steps. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    drained: CancellationToken,
}

impl Shutdown {
    /// No shutdown has begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain: the process takes no more work. Its ports go on answering, so that clients are told so.
    pub fn begin(&self) {
        self.draining.cancel();
    }

    /// Ends the drain: the process has finished its work. Its ports close as soon as the requests from before the drain
    /// are answered.
    pub fn finish(&self) {
        self.begin();
        self.drained.cancel();
    }
}

/// Serves until the process has drained.
///
/// When the drain begins, every idle connection is closed; a request that is being served is finished and its
/// connection closed. New connections are still accepted, for one request each: a load balancer learns from `/readyz`
/// to use another instance, while a closed port would look like a crash. Refusing new work is up to the routes. The
/// port closes when [`Shutdown::finish`] has been called and the requests from before the drain have been answered, but
/// at the latest `grace` after the drain began. Requests that are left then are aborted, so a half-sent body or a slow
/// reader delays the exit no longer than that.
///
/// At most `most` connections are open at a time, see `crowd.rs`.
///
/// A failure of one connection does not affect the others: a panic ends its own task, and a failed `accept` (for
/// example, no file descriptor is free) is retried.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: Shutdown,
    grace: Duration,
    most: usize,
) {
    let crowd = Crowd::new(most);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client that has sent its request and closes its side still gets its answer (`printf … | nc -N`). Also, a
        // client that disconnects does not cancel a handler between a commit and what follows it.
        .half_close(true);
    let abort = CancellationToken::new();
    // Child tokens, so that polling one does not contend with every other connection.
    let connect = |http: &http1::Builder,
                   (socket, place): (TcpStream, Place),
                   closing: &CancellationToken| {
        let (closing, abort) = (closing.child_token(), abort.child_token());
        connection(http.clone(), socket, place, router.clone(), closing, abort)
    };

    let before = TaskTracker::new();
    tokio::select! {
        biased;
        () = shutdown.draining.cancelled() => {}
        never = accept(&listener, &crowd, |accepted| {
            before.spawn(connect(&http, accepted, &shutdown.draining));
        }) => match never {},
    }

    let deadline = Instant::now() + grace;
    before.close();
    let ended = async {
        shutdown.drained.cancelled().await;
        before.wait().await;
    };
    let during = TaskTracker::new();
    let closed = CancellationToken::new();
    http.keep_alive(false);
    tokio::select! {
        biased;
        // First, so that no number of new connections can delay it.
        () = sleep_until(deadline) => {}
        // Before the end, so that connections that are established by then are not reset.
        never = accept(&listener, &crowd, |accepted| {
            during.spawn(connect(&http, accepted, &closed));
        }) => match never {},
        () = ended => {}
    }

    drop(listener);
    closed.cancel();
    during.close();
    let _ = timeout(LAST_ANSWER, during.wait()).await;
    let left = before.len();
    if left > 0 {
        tracing::warn!(
            connections = left,
            grace_ms = grace.as_millis() as u64,
            "cutting off connections that outlasted the grace period"
        );
    }
    abort.cancel();
    let both = async { tokio::join!(before.wait(), during.wait()) };
    let _ = timeout(ABORT_TIME, both).await;
}

/// Accepts connections for as long as it is polled.
async fn accept(
    listener: &TcpListener,
    crowd: &Crowd,
    mut take: impl FnMut((TcpStream, Place)),
) -> Infallible {
    let mut pause = Duration::ZERO;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                pause = Duration::ZERO;
                // Answers are small and complete: waiting to fill a packet only delays them.
                let _ = socket.set_nodelay(true);
                take((socket, crowd.place().await));
            }
            // The client disconnected before its connection was accepted.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                pause = (pause * 2).clamp(Duration::from_millis(10), MAX_ACCEPT_PAUSE);
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "cannot accept connections");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn connection(
    http: http1::Builder,
    socket: TcpStream,
    place: Place,
    router: Router,
    closing: CancellationToken,
    abort: CancellationToken,
) {
    let unread = Unread::default();
    let exchange = place.exchange.clone();
    let io = TokioIo::new(LingeringStream::new(
        socket,
        unread.clone(),
        exchange.clone(),
    ));
    let service = service_fn(move |request: Request<Incoming>| {
        let unread = unread.clone();
        let exchange = exchange.clone();
        exchange.begin();
        let request = request.map(|body| Body::new(Watched::new(body, unread.clone())));
        let answer = router.clone().call(request);
        async move {
            let Ok(mut response) = answer.await;
            if response.status() != StatusCode::METHOD_NOT_ALLOWED {
                // axum adds it to whatever answers a wrong method, a 401 included.
                response.headers_mut().remove(header::ALLOW);
            }
            if unread.get() {
                // What is left of the body will not be read, so nothing can follow it here: say so.
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Answered::new(body, exchange)))
        }
    });
    let mut connection = http.serve_connection(io, service);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        // Somebody else has its place; nothing is being answered.
        () = place.evicted.cancelled() => return,
        () = closing.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                biased;
                ended = &mut connection => ended,
                () = abort.cancelled() => return,
            }
        }
    };
    // Other errors of a connection are the client's; those of the service were logged with the request.
    if let Err(error) = ended
        && error.is_parse()
    {
        tracing::debug!(%error, "a client sent something that is no HTTP request");
        let mut socket = connection.into_parts().io.into_inner();
        if !socket.has_answered() {
            socket.leave_unread();
            let answering = async {
                socket.write_all(&unanswered()).await?;
                socket.shutdown().await
            };
            // A client that is gone, or does not read, needs no answer.
            let _ = timeout(LAST_ANSWER, answering).await;
        }
    }
}
