//! The request id and the log line of every request.
//!
//! Not by tower-http's request ids: those take over any id that a caller sends, also one that breaks a log line.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::http::answer::{Cause, Subject};

/// The header that carries the id, both ways.
const REQUEST_ID: &str = "x-request-id";

/// The longest id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// How much of a path reaches the log, in bytes. Longer than the path of any route.
const MAX_LOGGED_PATH_BYTES: usize = 400;

/// The outermost middleware, so that every answer has an id and a log line.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let log = RequestLog {
        started: Instant::now(),
        method: request.method().clone(),
        route: request.extensions().get::<MatchedPath>().cloned(),
        uri: request.uri().clone(),
        id: id.clone(),
        done: false,
    };
    let mut response = next.run(request).await;
    log.write(&response);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's id, if it is safe in a log and a header; otherwise a new one, which sorts by time.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut sent = headers.get_all(REQUEST_ID).iter();
    if let (Some(id), None) = (sent.next(), sent.next())
        && is_safe(id.as_bytes())
    {
        return id.clone();
    }
    new_request_id()
}

/// An id for a request whose caller sent none.
pub(crate) fn new_request_id() -> HeaderValue {
    let id = kodo_contract::request_id();
    #[expect(
        clippy::expect_used,
        reason = "hex digits and hyphens are a valid header value"
    )]
    HeaderValue::try_from(id).expect("a UUID is a header value")
}

fn is_safe(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-:".contains(byte);
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(allowed)
}

/// The log line of one request. Written when the answer is ready, or on drop if the request is dropped before: its
/// client disconnected, or the grace period of the drain ended.
struct RequestLog {
    started: Instant,
    method: Method,
    route: Option<MatchedPath>,
    uri: axum::http::Uri,
    id: HeaderValue,
    done: bool,
}

impl RequestLog {
    fn write(mut self, response: &Response) {
        self.done = true;
        let extensions = response.extensions();
        let subject = extensions.get::<Subject>().cloned().unwrap_or_default();
        let cause = extensions.get::<Cause>();
        self.emit(Some(response.status()), &subject, cause);
    }

    fn emit(&self, status: Option<StatusCode>, subject: &Subject, cause: Option<&Cause>) {
        // Fields and not `#[instrument]`: a span costs time in every request, and nothing is nested here.
        macro_rules! line {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    method = %self.method,
                    route = self.route.as_ref().map(MatchedPath::as_str),
                    // Without the query: people put secrets into queries.
                    path = shortened(self.uri.path()),
                    status = status.map(|status| status.as_u16()),
                    duration_ms = self.started.elapsed().as_micros() as f64 / 1000.0,
                    request.id = self.id.to_str().ok(),
                    intent.id = subject.intent.as_ref().map(|id| id.as_str()),
                    run.id = subject.run.as_ref().map(|id| id.as_str()),
                    workflow.id = subject.workflow.as_ref().map(|id| id.as_str()),
                    cause = cause.map(|cause| cause.0.as_str()),
                    $message
                )
            };
        }
        let probe = matches!(self.uri.path(), "/healthz" | "/readyz" | "/dbos-healthz");
        match status {
            None => line!(info, "request abandoned"),
            // Probes are frequent, and expected to fail while the process boots.
            Some(_) if probe => line!(debug, "request"),
            Some(status) if status.is_server_error() => line!(error, "request"),
            Some(_) => line!(info, "request"),
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if !self.done {
            self.emit(None, &Subject::default(), None);
        }
    }
}

fn shortened(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_LOGGED_PATH_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(sent: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(REQUEST_ID, value.parse().unwrap());
        }
        request_id(&headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn a_safe_id_of_the_caller_is_kept() {
        let long = "x".repeat(128);
        for safe in ["a", "01ab-CD_e.f:9", &long] {
            assert_eq!(id_of(&[safe]), safe);
        }
    }

    #[test]
    fn any_other_id_is_replaced_by_a_uuid_of_version_7() {
        let long = "x".repeat(129);
        for odd in [
            &["a b"][..],
            &[""],
            &["a\"b"],
            &["{}"],
            &[&long],
            &["a", "b"],
            &[],
        ] {
            let id = id_of(odd);
            // The version of a UUID is its fifteenth character.
            let id = (id.len(), id.matches('-').count(), &id[14..15]);
            assert_eq!(id, (36, 4, "7"), "{odd:?}");
        }
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        assert_eq!(shortened("/runs/x"), "/runs/x");
        let path = format!("/{}", "é".repeat(400));
        assert_eq!(shortened(&path).len(), MAX_LOGGED_PATH_BYTES - 1);
    }
}
