//! Serving connections, and ending them.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::linger::{LingeringStream, Unread, Watched};

/// How long a client may take to send the head of a request; also how long a kept-alive connection may lie idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes; also the size up to which a connection's buffer grows. The longest request
/// target that the parser takes at all is just below.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The longest pause after the system refused a connection.
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long aborted connections may take to let go: each does so at its next poll.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// How long what came during a drain may take once the port is closed: it is a probe, or it is refused, or it is no
/// request yet.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// The way out of a process, in two steps, for all of its servers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    drained: CancellationToken,
}

impl Shutdown {
    /// Of a process that is not on its way out.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The process takes no more work. Its ports go on answering, so that whoever asks is told so.
    pub fn begin(&self) {
        self.draining.cancel();
    }

    /// The process has done what it will do. Its ports close as soon as the requests from before the drain are answered.
    pub fn finish(&self) {
        self.begin();
        self.drained.cancel();
    }
}

/// Serves until the process drains and beyond that until it has drained.
///
/// When the drain begins, every idle connection is closed; a request that is being served is finished and its
/// connection closed. New connections are still taken, for one request each: a load balancer learns from `/readyz` that
/// it is to look elsewhere, where a closed port would look like a crash; what would be work is for the routes to
/// refuse. The port closes when [`Shutdown::finish`] is called and the requests from before the drain have been
/// answered, or `grace` after the drain began, when what is left of them is cut off: a half-sent body or a slow reader
/// holds the exit no longer than that.
///
/// One connection's failure is never another's: a panic ends its own task, and a refused `accept` (out of file
/// descriptors, say) is retried.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown, grace: Duration) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client that has sent its request and closes its side still gets its answer (`printf … | nc -N`). It also
        // means that a client which hangs up does not cut a handler off between a commit and what follows it.
        .half_close(true);
    let abort = CancellationToken::new();
    // Child tokens, so that polling one does not contend with every other connection.
    let connect = |http: &http1::Builder, socket, closing: &CancellationToken| {
        let (closing, abort) = (closing.child_token(), abort.child_token());
        connection(http.clone(), socket, router.clone(), closing, abort)
    };

    let before = TaskTracker::new();
    tokio::select! {
        biased;
        () = shutdown.draining.cancelled() => {}
        never = accept(&listener, |socket| {
            before.spawn(connect(&http, socket, &shutdown.draining));
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
        // First of all, so that no number of callers can put it off.
        () = sleep_until(deadline) => {}
        // Before the end, so that whoever is connected by then is not reset.
        never = accept(&listener, |socket| {
            during.spawn(connect(&http, socket, &closed));
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

/// Takes connections for as long as it is polled.
async fn accept(listener: &TcpListener, mut take: impl FnMut(TcpStream)) -> Infallible {
    let mut pause = Duration::ZERO;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                pause = Duration::ZERO;
                // Answers are small and complete: waiting to fill a packet only delays them.
                let _ = socket.set_nodelay(true);
                take(socket);
            }
            // The client was gone before we came to it.
            Err(error) if is_clients(&error) => {}
            Err(error) => {
                pause = (pause * 2).clamp(Duration::from_millis(10), MAX_ACCEPT_PAUSE);
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "cannot accept connections");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn is_clients(error: &io::Error) -> bool {
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
    router: Router,
    closing: CancellationToken,
    abort: CancellationToken,
) {
    let unread = Unread::default();
    let io = TokioIo::new(LingeringStream::new(socket, unread.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let unread = unread.clone();
        let request = request.map(|body| Body::new(Watched::new(body, unread.clone())));
        let answer = router.clone().call(request);
        async move {
            let Ok(mut response) = answer.await;
            if unread.get() {
                // What is left of the body will not be read, so nothing can follow it here: say so.
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(http.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                () = abort.cancelled() => return,
            }
        }
    };
    // How a connection ends is its client's business: whatever concerns us was logged with the request. What was no
    // request at all got a bare 400, 414 or 431 from the parser, and no line so far.
    if let Err(error) = ended
        && error.is_parse()
    {
        tracing::debug!(%error, "a client sent something that is no HTTP request");
    }
}
