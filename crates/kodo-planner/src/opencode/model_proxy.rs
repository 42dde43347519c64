//! The model proxy: the only way from an OpenCode of ours to the model.
//!
//! It forwards a request if it has the token of this start, is a chat completion, and belongs to the session of a plan
//! that is being made; to the configured endpoint, with the provider's key, which OpenCode never has. It also reads the
//! model's answer on the way, because OpenCode would ask a failing model for ever and take half an answer for a wrong
//! one: failures are those of every other provider, and the plan hears of them at once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kodo_contract::{ErrorCode, parse_json};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::dialect::Learned;
use crate::failure::Failure;
use crate::retry::{Retries, Time};
use crate::unanswered::Unanswered;
use crate::wire::{self, Wire};
use crate::{Endpoint, Secret, stream};

use super::launch::{ANSWER_TOOL, Stream};

/// The header in which OpenCode names the session of a request.
const SESSION: &str = "x-session-id";

/// The most bytes of a request.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// The most requests of one plan. A plan takes one a round; OpenCode sends another if the model calls a tool that does not
/// exist.
const MAX_REQUESTS: u32 = 12;

/// The answer to the prompt of a self-test, in the model's place.
const SELF_TEST: &str = r#"{"ready":true}"#;

/// The model that requests are forwarded to.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    pub(crate) secret: Option<Secret>,
    pub(crate) first_pause: Duration,
    pub(crate) max_tokens: u32,
}

/// The model proxy of one start.
#[derive(Debug)]
pub(crate) struct ModelProxy {
    upstream: Upstream,
    wire: Wire,
    token: HeaderValue,
    learned: Learned,
    /// The sessions whose requests are forwarded, by id.
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// A session whose requests are forwarded.
#[derive(Debug)]
struct Session {
    purpose: Purpose,
    requests: AtomicU32,
    /// Tells the plan that there will be no answer, and why.
    failure: watch::Sender<Option<Failure>>,
    /// Closes when the grant is dropped.
    granted: watch::Receiver<()>,
}

/// What a session is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Testing OpenCode. The proxy answers itself.
    SelfTest,
    /// A plan.
    Plan {
        key: String,
        seed: u64,
        time: Arc<Time>,
    },
}

/// Lets the requests of one session through. Dropping it closes the session's connections to the model.
pub(crate) struct Grant {
    proxy: Arc<ModelProxy>,
    session: String,
    failure: watch::Receiver<Option<Failure>>,
    _granted: watch::Sender<()>,
}

impl Grant {
    /// Waits until the proxy knows that there will be no answer. Never returns if that does not happen.
    pub(crate) async fn failed(&mut self) -> Failure {
        let known = self.failure.wait_for(Option::is_some).await;
        match known.ok().and_then(|failure| failure.clone()) {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        lock(&self.proxy.sessions).remove(&self.session);
    }
}

type Answer = Response<Piped>;

impl ModelProxy {
    pub(crate) fn new(upstream: Upstream, token: &Secret) -> Self {
        Self {
            wire: Wire::new(upstream.endpoint.clone(), upstream.secret.clone()),
            upstream,
            // The token consists of hexadecimal digits, which a header can carry.
            token: HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            learned: Learned::default(),
            sessions: Mutex::default(),
        }
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.wire.secret()
    }

    /// Lets the requests of a session through until the grant is dropped.
    pub(crate) fn grant(self: &Arc<Self>, id: &str, purpose: Purpose) -> Grant {
        let (tell_failure, failure) = watch::channel(None);
        let (held, granted) = watch::channel(());
        let session = Session {
            purpose,
            requests: AtomicU32::new(0),
            failure: tell_failure,
            granted,
        };
        lock(&self.sessions).insert(id.to_owned(), Arc::new(session));
        Grant {
            proxy: Arc::clone(self),
            session: id.to_owned(),
            failure,
            _granted: held,
        }
    }

    /// Serves one connection of OpenCode.
    pub(crate) async fn serve(self: Arc<Self>, stream: Box<dyn Stream>) {
        let service = service_fn(|request| {
            let proxy = Arc::clone(&self);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        // If the connection breaks, the plan hears of it from OpenCode.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if head.headers.get(AUTHORIZATION) != Some(&self.token) {
            return refuse(
                StatusCode::UNAUTHORIZED,
                "the model proxy does not know this token",
            );
        }
        if head.method != Method::POST || head.uri.path() != "/v1/chat/completions" {
            return refuse(StatusCode::NOT_FOUND, "only chat completions are forwarded");
        }
        let id = head.headers.get(SESSION).and_then(|it| it.to_str().ok());
        let session = id.and_then(|id| lock(&self.sessions).get(id).cloned());
        let Some(session) = session else {
            return refuse(
                StatusCode::FORBIDDEN,
                "this session is not of a plan that is being made",
            );
        };
        let bytes = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
            Ok(whole) => whole.to_bytes(),
            Err(_) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"),
        };
        let Some(body) = parse_json(&bytes).ok().filter(Value::is_object) else {
            return refuse(StatusCode::BAD_REQUEST, "the request is no JSON object");
        };
        let Purpose::Plan { key, seed, time } = &session.purpose else {
            return self_test();
        };
        let number = session.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let mut granted = session.granted.clone();
        let key = format!("{key}/opencode/{number}");
        let asked = tokio::select! {
            asked = self.ask(body, *seed, &key, time, number) => asked,
            _ = granted.changed() => return refuse(StatusCode::GONE, "the plan is no longer waited for"),
        };
        match asked {
            Ok(response) => {
                let (pieces, piped) = mpsc::channel(16);
                tokio::spawn(self.forward(response, session, pieces));
                answer(StatusCode::OK, "text/event-stream", Piped(piped))
            }
            Err(failure) => {
                // OpenCode does not retry after this status.
                let refused = refuse(StatusCode::BAD_REQUEST, &failure.message);
                session.failure.send_if_modified(|it| set(it, failure));
                refused
            }
        }
    }

    /// Sends a request to the model, in the dialect that it accepts, and again if that may help.
    async fn ask(
        &self,
        mut body: Value,
        seed: u64,
        key: &str,
        time: &Time,
        number: u32,
    ) -> Result<reqwest::Response, Failure> {
        if number > MAX_REQUESTS {
            return Err(Failure::new(
                ErrorCode::PlannerAnswerInvalid,
                format!(
                    "OpenCode had the model asked {MAX_REQUESTS} times, and it did not hand in a plan"
                ),
            ));
        }
        body["model"] = self.upstream.model.as_str().into();
        let mut dialect = self.learned.dialect();
        let mut retries = Retries::new(self.upstream.first_pause, time);
        loop {
            let mut adapted = body.clone();
            dialect.adapt(&mut adapted, seed);
            let failure = match self.wire.open(&adapted, key).await {
                Ok(response) => {
                    self.learned.learn(dialect);
                    return streamed(response, self.secret());
                }
                Err(Unanswered::Refused(refusal)) => {
                    // OpenCode decides how the shape of the answer is requested.
                    let next = dialect.after(&refusal);
                    if let Some(next) = next.filter(|next| next.form == dialect.form) {
                        dialect = next;
                        continue;
                    }
                    refusal.failure(retries.count())
                }
                Err(Unanswered::Failed(failure)) => failure,
            };
            retries.wait(failure, key).await?;
        }
    }

    /// Forwards the answer to OpenCode as it arrives, and tells the plan if it is a bad one.
    async fn forward(
        self: Arc<Self>,
        response: reqwest::Response,
        session: Arc<Session>,
        pieces: mpsc::Sender<io::Result<Bytes>>,
    ) {
        let mut granted = session.granted.clone();
        // Dropping the response closes the connection to the model.
        let read = tokio::select! {
            read = self.read(response, &pieces) => read,
            _ = granted.changed() => Err(closed()),
        };
        if let Err(failure) = read {
            session.failure.send_if_modified(|it| set(it, failure));
            // An abrupt end, so that OpenCode does not take this for the whole answer.
            let _ = pieces
                .send(Err(io::ErrorKind::ConnectionAborted.into()))
                .await;
        }
    }

    /// Reads the answer while its pieces are sent on.
    async fn read(
        &self,
        response: reqwest::Response,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Failure> {
        let forwarded = wire::pieces(response).and_then(|bytes: Bytes| {
            let pieces = pieces.clone();
            async move {
                let sent = pieces.send(Ok(bytes.clone())).await;
                sent.map(|()| bytes).map_err(|_| closed())
            }
        });
        match stream::read(forwarded, self.secret()).await {
            // OpenCode has closed its side.
            Err(_) if pieces.is_closed() => Ok(()),
            completion => {
                let completion = completion.map_err(|it| it.failure(0))?;
                completion.check(self.upstream.max_tokens, self.secret())
            }
        }
    }
}

/// Sets the failure, unless there is one already. Returns whether it did.
fn set(place: &mut Option<Failure>, failure: Failure) -> bool {
    let first = place.is_none();
    place.get_or_insert(failure);
    first
}

fn closed() -> Failure {
    Failure::new(
        ErrorCode::PlannerUnavailable,
        "the plan is no longer waited for",
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that the answer is streamed: OpenCode always requests that.
fn streamed(
    response: reqwest::Response,
    secret: Option<&Secret>,
) -> Result<reqwest::Response, Failure> {
    match wire::media_type(response.headers()).as_deref() {
        Some("text/event-stream") => Ok(response),
        other => Err(wire::wrong_type(
            other.unwrap_or("none"),
            "a stream of events, which OpenCode needs",
            secret,
        )),
    }
}

/// The answer to the prompt of a self-test: a call of the tool that submits an answer.
fn self_test() -> Answer {
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": ANSWER_TOOL, "arguments": SELF_TEST}});
    let chunk = |delta: Value, finish_reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
        json!({"id": "self-test", "object": "chat.completion.chunk", "created": 0, "model": "self-test", "choices": [choice]})
    };
    let text = format!(
        "data: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
        chunk(
            json!({"role": "assistant", "tool_calls": [call]}),
            Value::Null
        ),
        chunk(json!({}), "tool_calls".into()),
    );
    answer(StatusCode::OK, "text/event-stream", Piped::whole(text))
}

fn refuse(status: StatusCode, message: &str) -> Answer {
    let body =
        json!({"error": {"message": message, "type": "model_proxy", "param": null, "code": null}});
    answer(status, "application/json", Piped::whole(body.to_string()))
}

fn answer(status: StatusCode, content_type: &'static str, body: Piped) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A body whose pieces arrive by a channel.
struct Piped(mpsc::Receiver<io::Result<Bytes>>);

impl Piped {
    fn whole(text: String) -> Self {
        let (pieces, piped) = mpsc::channel(1);
        // A new channel has room for this one.
        let _ = pieces.try_send(Ok(Bytes::from(text)));
        Self(piped)
    }
}

impl Body for Piped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
