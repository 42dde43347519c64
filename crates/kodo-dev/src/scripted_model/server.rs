//! The server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::scripted_model::body::{Body, Piece, pieces, whole};
use crate::scripted_model::completion::Choice;
use crate::scripted_model::{Form, Reply, Script, ScriptError};

/// The one path that is answered.
const PATH: &str = "/v1/chat/completions";

/// A running server. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ScriptedModel {
    port: u16,
    stage: Arc<Stage>,
    serving: JoinHandle<()>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
}

#[derive(Debug)]
struct Stage {
    script: Script,
    /// The forms that are taken; any other one is answered with 400.
    forms: Mutex<Vec<Form>>,
    /// What is answered before the script is asked, in this order.
    queue: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    abandoned: AtomicUsize,
}

impl ScriptedModel {
    /// Listens on loopback; port 0 lets the system choose.
    ///
    /// # Errors
    /// [`ScriptError::Listen`].
    pub async fn start(port: u16, script: Script) -> Result<Self, ScriptError> {
        let listen = |source| ScriptError::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let stage = Arc::new(Stage {
            script,
            forms: Mutex::new(vec![Form::JsonSchema, Form::ToolCall, Form::Text]),
            queue: Mutex::default(),
            seen: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&stage)));
        Ok(Self {
            port,
            stage,
            serving,
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The base URL, as clients want it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// Takes requests of these forms alone; every other one is answered with 400.
    pub fn take_only(&self, forms: &[Form]) {
        *lock(&self.stage.forms) = forms.to_vec();
    }

    /// Answers the next request that nothing was said about yet with this.
    pub fn next(&self, reply: Reply) {
        lock(&self.stage.queue).push_back(reply);
    }

    /// The requests that came, in their order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.stage.seen).clone()
    }

    /// How many answers were given up by the client while they were waited for.
    pub fn abandoned(&self) -> usize {
        self.stage.abandoned.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, stage: Arc<Stage>) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let stage = Arc::clone(&stage);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&stage)));
            // A connection that breaks is the client's business, or the script's.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Counts an answer that nobody waited for to its end.
struct Waiting<'a>(Option<&'a Stage>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(stage) = self.0 {
            stage.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    stage: Arc<Stage>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    if head.method != hyper::Method::POST || head.uri.path() != PATH {
        return Ok(error(
            StatusCode::NOT_FOUND,
            &format!("only POST {PATH} is answered"),
        ));
    }
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let Ok(request) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(error(StatusCode::BAD_REQUEST, "the body is no JSON"));
    };
    lock(&stage.seen).push(Seen {
        headers: head.headers,
        body: request.clone(),
    });
    if !lock(&stage.forms).contains(&Form::of(&request)) {
        return Ok(error(
            StatusCode::BAD_REQUEST,
            "this form of answer is not supported",
        ));
    }
    let queued = lock(&stage.queue).pop_front();
    let reply = match queued.or_else(|| stage.script.answer(&request).cloned().map(Reply::Json)) {
        Some(reply) => reply,
        None => {
            return Ok(error(
                StatusCode::NOT_FOUND,
                "the script has no answer for this goal",
            ));
        }
    };
    Ok(match reply {
        Reply::Json(value) => choice(&Choice::json(&value, &request), &request),
        Reply::Text(text) => {
            let said = Choice {
                content: Some(text),
                finish_reason: "stop",
                ..Choice::default()
            };
            choice(&said, &request)
        }
        Reply::Refusal(words) => {
            let said = Choice {
                refusal: Some(words),
                finish_reason: "stop",
                ..Choice::default()
            };
            choice(&said, &request)
        }
        Reply::Ends(finish_reason) => {
            let said = Choice {
                content: Some(r#"{"prompt":"#.to_owned()),
                finish_reason,
                ..Choice::default()
            };
            choice(&said, &request)
        }
        Reply::NoChoices => {
            let empty =
                json!({"id": "chatcmpl-scripted", "object": "chat.completion", "choices": []});
            response(200, "application/json", whole(empty.to_string()))
        }
        Reply::Status(status, headers, body) => {
            let mut response = response(status, "application/json", whole(body.to_string()));
            for (name, value) in headers {
                if let Ok(value) = value.parse() {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Reply::Raw(content_type, bytes) => response(200, content_type, whole(bytes)),
        Reply::Slow(value, pause) => {
            let (content_type, parts) = parts(&Choice::json(&value, &request), &request);
            let parts = parts
                .into_iter()
                .flat_map(|part| [Piece::Pause(pause), Piece::Bytes(part)]);
            response(200, content_type, pieces(parts.collect()))
        }
        Reply::Half(value) => {
            let (content_type, mut parts) = parts(&Choice::json(&value, &request), &request);
            parts.truncate(parts.len() / 2);
            // What was sent has to be on its way: a break at once would take it along.
            let end = [Piece::Pause(Duration::from_millis(50)), Piece::Break];
            let parts = parts.into_iter().map(Piece::Bytes).chain(end);
            response(200, content_type, pieces(parts.collect()))
        }
        Reply::Hang => {
            let _waiting = Waiting(Some(&stage));
            std::future::pending::<()>().await;
            unreachable!("a pending future never resolves")
        }
        Reply::Endless => {
            let (content_type, filler) = if streams(&request) {
                let filler = format!(
                    "data: {}\n\n",
                    json!({"choices": [{"delta": {"content": "x".repeat(65_536)}}]})
                );
                ("text/event-stream", filler)
            } else {
                ("application/json", " ".repeat(65_536))
            };
            response(
                200,
                content_type,
                pieces(vec![Piece::Forever(filler.into())]),
            )
        }
    })
}

fn streams(request: &Value) -> bool {
    request["stream"] == true
}

/// The answer in the pieces that the request asks for, or that a network could make of it.
fn parts(choice: &Choice, request: &Value) -> (&'static str, Vec<Bytes>) {
    if streams(request) {
        let events = choice.events(request).into_iter().map(Bytes::from);
        return ("text/event-stream", events.collect());
    }
    let whole = choice.whole(request).to_string();
    let parts = whole.as_bytes().chunks(64).map(Bytes::copy_from_slice);
    ("application/json", parts.collect())
}

fn choice(choice: &Choice, request: &Value) -> Response<Body> {
    let (content_type, parts) = parts(choice, request);
    if streams(request) {
        let parts = parts.into_iter().map(Piece::Bytes);
        return response(200, content_type, pieces(parts.collect()));
    }
    response(200, content_type, whole(parts.concat()))
}

fn error(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}});
    response(status.as_u16(), "application/json", whole(body.to_string()))
}

fn response(status: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    response
}
