//! The way from an OpenCode of ours to the model, and the only one.
//!
//! A request passes where it has the token of this start, is a chat completion, and belongs to the session of a plan
//! that is being made. It goes to the configured endpoint, with the provider's key, which OpenCode never sees. What the
//! model answers is watched on its way: OpenCode itself would ask a failing model for ever, and take half an answer for
//! a wrong one. What it means is decided as for every other provider, and told to the plan.

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
use kodo_contract::parse_json;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::dialect::Dialect;
use crate::failure::{Failure, FailureCode};
use crate::patience::{Patience, final_failure};
use crate::told::told;
use crate::wire::{self, Wire};
use crate::{Endpoint, Secret, stream};

use super::launch::{ANSWER_TOOL, Stream};

/// The header by which OpenCode says which session a request belongs to.
const SESSION: &str = "x-session-id";

/// How much of a request is read.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// How often the model is asked for one plan: once a round is what it takes, and OpenCode has it say more where the
/// model calls a tool that is not there.
const MAX_REQUESTS: u32 = 12;

/// What the gate answers the question of a start, in the model's place.
pub(crate) const WARM: &str = r#"{"ready":true}"#;

/// How a model is asked.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    pub(crate) secret: Option<Secret>,
    pub(crate) first_pause: Duration,
    pub(crate) max_tokens: u32,
}

/// The gate of one start.
#[derive(Debug)]
pub(crate) struct Gate {
    upstream: Upstream,
    wire: Wire,
    token: HeaderValue,
    dialect: Mutex<Dialect>,
    passes: Mutex<HashMap<String, Arc<Pass>>>,
}

/// What a session may do, as long as its plan is being made.
#[derive(Debug)]
struct Pass {
    purpose: Purpose,
    requests: AtomicU32,
    /// What was decided about the plan on the way; the plan hears of it at once.
    failure: watch::Sender<Option<Failure>>,
    /// Closed when the plan is no longer waited for.
    open: watch::Receiver<()>,
}

#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// See whether everything is in its place. No model is asked.
    Warm,
    /// A plan.
    Plan {
        key: String,
        seed: u64,
        deadline: Instant,
    },
}

/// A plan's hold on its pass. Dropping it ends whatever goes on with the model for it.
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    session: String,
    failure: watch::Receiver<Option<Failure>>,
    _open: watch::Sender<()>,
}

impl Ticket {
    /// Waits until the gate knows that there will be no plan.
    pub(crate) async fn failed(&mut self) -> Failure {
        let known = self.failure.wait_for(Option::is_some).await;
        let known = known.ok().and_then(|failure| failure.clone());
        match known {
            Some(failure) => failure,
            // The gate is gone; what becomes of the plan, OpenCode's API says.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.gate.passes).remove(&self.session);
    }
}

type Answer = Response<Piped>;

impl Gate {
    pub(crate) fn new(upstream: Upstream, token: &Secret) -> Self {
        Self {
            wire: Wire::new(upstream.endpoint.clone(), upstream.secret.clone()),
            upstream,
            // The token is our own, in hexadecimal digits.
            token: HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            dialect: Mutex::default(),
            passes: Mutex::default(),
        }
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.wire.secret()
    }

    /// Lets a session's requests pass.
    pub(crate) fn admit(self: &Arc<Self>, session: &str, purpose: Purpose) -> Ticket {
        let (failure, told) = watch::channel(None);
        let (held, open) = watch::channel(());
        let pass = Pass {
            purpose,
            requests: AtomicU32::new(0),
            failure,
            open,
        };
        lock(&self.passes).insert(session.to_owned(), Arc::new(pass));
        Ticket {
            gate: Arc::clone(self),
            session: session.to_owned(),
            failure: told,
            _open: held,
        }
    }

    /// Serves one connection of OpenCode's.
    pub(crate) async fn serve(self: Arc<Self>, stream: Box<dyn Stream>) {
        let service = service_fn(|request| {
            let gate = Arc::clone(&self);
            async move { Ok::<_, Infallible>(gate.answer(request).await) }
        });
        // A connection that breaks is OpenCode's business; the plan hears of it there.
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
                "the gate does not know this token",
            );
        }
        if head.method != Method::POST || head.uri.path() != "/v1/chat/completions" {
            return refuse(StatusCode::NOT_FOUND, "only chat completions pass the gate");
        }
        let session = head.headers.get(SESSION).and_then(|it| it.to_str().ok());
        let pass = session.and_then(|it| lock(&self.passes).get(it).cloned());
        let Some(pass) = pass else {
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
        let Purpose::Plan {
            key,
            seed,
            deadline,
        } = &pass.purpose
        else {
            return warm();
        };
        let number = pass.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let mut open = pass.open.clone();
        let key = format!("{key}/opencode/{number}");
        let asked = tokio::select! {
            asked = self.ask(body, *seed, &key, *deadline, number) => asked,
            _ = open.changed() => return refuse(StatusCode::GONE, "the plan is no longer waited for"),
        };
        match asked {
            Ok(response) => {
                let (pieces, piped) = mpsc::channel(16);
                tokio::spawn(self.pass_on(response, pass, pieces));
                answer(StatusCode::OK, "text/event-stream", Piped(piped))
            }
            Err(failure) => {
                // Of the kind that OpenCode does not ask again after.
                let refused = refuse(StatusCode::BAD_REQUEST, &failure.message);
                pass.failure.send_if_modified(|it| set(it, failure));
                refused
            }
        }
    }

    /// Asks the model, again where that may help, in the words that it takes.
    async fn ask(
        &self,
        mut body: Value,
        seed: u64,
        key: &str,
        deadline: Instant,
        number: u32,
    ) -> Result<reqwest::Response, Failure> {
        if number > MAX_REQUESTS {
            return Err(Failure::new(
                FailureCode::PlannerAnswerInvalid,
                format!(
                    "OpenCode had the model asked {MAX_REQUESTS} times, and it did not hand in a plan"
                ),
            ));
        }
        body["model"] = self.upstream.model.as_str().into();
        let mut dialect = *lock(&self.dialect);
        let mut patience = Patience::new(self.upstream.first_pause, deadline);
        loop {
            let mut adapted = body.clone();
            dialect.adapt(&mut adapted, seed);
            let refusal = match self.wire.open(&adapted, key).await? {
                Ok(response) => {
                    *lock(&self.dialect) = dialect;
                    return streamed(response, self.secret());
                }
                Err(refusal) => refusal,
            };
            let status = refusal.status;
            if status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY {
                // How the shape is asked for is OpenCode's choice, and it has one.
                match dialect.after_rejection(&refusal.parameter, &refusal.message) {
                    Some(next) if next.form == dialect.form => dialect = next,
                    _ => return Err(final_failure(&refusal, 0)),
                }
                continue;
            }
            patience.after(&refusal, key).await?;
        }
    }

    /// Hands the answer to OpenCode as it comes, and sees how it ends.
    async fn pass_on(
        self: Arc<Self>,
        response: reqwest::Response,
        pass: Arc<Pass>,
        pieces: mpsc::Sender<io::Result<Bytes>>,
    ) {
        let mut open = pass.open.clone();
        // Dropping the answer closes the connection to the model.
        let watched = tokio::select! {
            watched = self.watch(response, &pieces) => watched,
            _ = open.changed() => Err(closed()),
        };
        if let Err(failure) = watched {
            pass.failure.send_if_modified(|it| set(it, failure));
            // Not a good end: OpenCode must not take what came for all there is.
            let _ = pieces
                .send(Err(io::ErrorKind::ConnectionAborted.into()))
                .await;
        }
    }

    async fn watch(
        &self,
        response: reqwest::Response,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Failure> {
        let watched = wire::pieces(response).and_then(|bytes: Bytes| {
            let pieces = pieces.clone();
            async move {
                let sent = pieces.send(Ok(bytes.clone())).await;
                sent.map(|()| bytes).map_err(|_| closed())
            }
        });
        match stream::read(watched, self.secret()).await {
            // OpenCode wants no more of it.
            Err(_) if pieces.is_closed() => Ok(()),
            completion => completion?.whole(self.upstream.max_tokens, self.secret()),
        }
    }
}

/// Keeps the first one.
fn set(place: &mut Option<Failure>, failure: Failure) -> bool {
    let first = place.is_none();
    place.get_or_insert(failure);
    first
}

fn closed() -> Failure {
    Failure::new(
        FailureCode::PlannerUnavailable,
        "the plan is no longer waited for",
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer that comes in pieces, as OpenCode always asks for one.
fn streamed(
    response: reqwest::Response,
    secret: Option<&Secret>,
) -> Result<reqwest::Response, Failure> {
    match wire::media_type(response.headers()).as_deref() {
        Some("text/event-stream") => Ok(response),
        other => Err(Failure::new(
            FailureCode::PlannerAnswerInvalid,
            format!(
                "the provider answered with content type {}, not with a stream of events, which OpenCode needs: see \
                 whether OC_BASE_URL is the address of its OpenAI-compatible API",
                told(other.unwrap_or("none"), secret)
            ),
        )),
    }
}

fn warm() -> Answer {
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": ANSWER_TOOL, "arguments": WARM}});
    let chunk = |delta: Value, finish_reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
        json!({"id": "warm", "object": "chat.completion.chunk", "created": 0, "model": "warm", "choices": [choice]})
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
    let body = json!({"error": {"message": message, "type": "gate", "param": null, "code": null}});
    answer(status, "application/json", Piped::whole(body.to_string()))
}

fn answer(status: StatusCode, content_type: &'static str, body: Piped) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A body whose pieces somebody else sends.
struct Piped(mpsc::Receiver<io::Result<Bytes>>);

impl Piped {
    fn whole(text: String) -> Self {
        let (pieces, piped) = mpsc::channel(1);
        // The channel is empty, and has room for one.
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
