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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::linger::{LingeringStream, Unread, Watched};

/// How long a client may take to send the head of a request; also how long a kept-alive connection may lie idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes; also the size up to which a connection's buffer grows. The longest request
/// target that the parser takes at all is just below.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The longest pause after the system refused a connection.
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long aborted connections may take to let go: each does so at its next poll.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// Serves until `shutdown` is cancelled, and then until every connection has ended, for at most `grace`.
///
/// On shutdown the port closes at once and so does every idle connection; a request that is being served is finished
/// and its connection closed. After `grace` what is left is cut off: a half-sent body or a slow reader holds the exit
/// no longer than that.
///
/// One connection's failure is never another's: a panic ends its own task, and a refused `accept` (out of file
/// descriptors, say) is retried.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client that has sent its request and closes its side still gets its answer (`printf … | nc -N`). It also
        // means that a client which hangs up does not cut a handler off between a commit and what follows it.
        .half_close(true);
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();

    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                pause = Duration::ZERO;
                // Answers are small and complete: waiting to fill a packet only delays them.
                let _ = socket.set_nodelay(true);
                // Child tokens, so that polling one does not contend with every other connection.
                connections.spawn(connection(
                    http.clone(),
                    socket,
                    router.clone(),
                    shutdown.child_token(),
                    abort.child_token(),
                ));
            }
            // The client was gone before we came to it.
            Err(error) if is_clients(&error) => {}
            Err(error) => {
                pause = (pause * 2).clamp(Duration::from_millis(10), MAX_ACCEPT_PAUSE);
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "cannot accept connections");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    drop(listener);
    connections.close();
    if tokio::time::timeout(grace, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            grace_ms = grace.as_millis() as u64,
            "cutting off connections that outlasted the grace period"
        );
        abort.cancel();
        let _ = tokio::time::timeout(ABORT_TIME, connections.wait()).await;
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
    shutdown: CancellationToken,
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
        () = shutdown.cancelled() => {
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
