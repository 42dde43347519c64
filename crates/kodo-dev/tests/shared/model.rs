//! The scripted model with the answers that a model should not give: wrong ones, slow ones, half ones, none at all.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use kodo_dev::scripted_model::{self, Body, Choice, error, whole};
use serde_json::{Value, json};

pub use kodo_dev::scripted_model::{Form, Script, Seen};

const JSON: &str = "application/json";

/// One answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This JSON, in the form and the pieces that the request asks for.
    Json(Value),
    /// This text, whatever form was asked for.
    Text(String),
    /// The model declines, with these words.
    Refusal(String),
    /// The answer ends for this reason (`length`, `content_filter`) in its middle.
    Ends(&'static str),
    /// A chat completion without any choice.
    NoChoices,
    /// A status with headers and a body.
    Status(u16, Vec<(&'static str, String)>, Value),
    /// These bytes, as this content type.
    Raw(&'static str, Bytes),
    /// The JSON in small pieces, with this pause before each.
    Slow(Value, Duration),
    /// The first half of the JSON, and then the connection breaks.
    Half(Value),
    /// An answer that never comes.
    Hang,
    /// An answer that never ends.
    Endless,
}

impl Reply {
    /// An error as OpenAI words it.
    pub fn error(status: u16, message: &str) -> Self {
        let error =
            json!({"error": {"message": message, "type": "error", "param": null, "code": null}});
        Self::Status(status, Vec::new(), error)
    }

    /// The answer to a request. For [`Reply::Hang`] it never comes.
    async fn answer(self, request: &Value) -> Response<Body> {
        let choice = |field, text, reason| Choice::new(field, text, reason).whole(request);
        match self {
            Self::Json(value) => Choice::json(&value, request).whole(request),
            Self::Text(text) => choice("content", text, "stop"),
            Self::Refusal(words) => choice("refusal", words, "stop"),
            Self::Ends(reason) => choice("content", r#"{"prompt":"#.to_owned(), reason),
            Self::NoChoices => {
                let empty =
                    json!({"id": "chatcmpl-scripted", "object": "chat.completion", "choices": []});
                whole(JSON, empty.to_string())
            }
            Self::Status(status, headers, body) => {
                let mut answer = whole(JSON, body.to_string());
                *answer.status_mut() = status.try_into().unwrap();
                for (name, value) in headers {
                    answer.headers_mut().insert(name, value.parse().unwrap());
                }
                answer
            }
            Self::Raw(kind, bytes) => whole(kind, bytes),
            Self::Slow(value, pause) => {
                let (kind, parts) = parts(&value, request);
                let slow = parts
                    .into_iter()
                    .flat_map(|part| [Piece::Pause(pause), Piece::Bytes(part)]);
                in_pieces(kind, slow.collect())
            }
            Self::Half(value) => {
                let (kind, mut parts) = parts(&value, request);
                parts.truncate(parts.len() / 2);
                // What was sent has to be on its way: a break at once would take it along.
                let end = [Piece::Pause(Duration::from_millis(50)), Piece::Break];
                in_pieces(
                    kind,
                    parts.into_iter().map(Piece::Bytes).chain(end).collect(),
                )
            }
            Self::Hang => std::future::pending().await,
            Self::Endless => {
                let delta = json!({"choices": [{"delta": {"content": "x".repeat(65_536)}}]});
                let (kind, filler) = match request["stream"] == true {
                    true => ("text/event-stream", format!("data: {delta}\n\n")),
                    false => (JSON, " ".repeat(65_536)),
                };
                in_pieces(kind, [Piece::Forever(filler.into())].into())
            }
        }
    }
}

/// A document cut as a network could cut it, or events.
fn parts(value: &Value, request: &Value) -> (&'static str, Vec<Bytes>) {
    let (kind, parts) = Choice::json(value, request).parts(request);
    match parts.as_slice() {
        [document] => (
            kind,
            document.chunks(64).map(Bytes::copy_from_slice).collect(),
        ),
        _ => (kind, parts),
    }
}

/// One thing that happens while a body is sent.
#[derive(Clone)]
enum Piece {
    Bytes(Bytes),
    Pause(Duration),
    /// The connection breaks.
    Break,
    /// These bytes go out again and again.
    Forever(Bytes),
}

fn in_pieces(kind: &'static str, pieces: VecDeque<Piece>) -> Response<Body> {
    let frames = unfold(pieces, |mut left| async {
        loop {
            let sent = match left.front()?.clone() {
                Piece::Forever(bytes) => return Some((Ok(Frame::data(bytes)), left)),
                Piece::Bytes(bytes) => Some(Ok(Frame::data(bytes))),
                Piece::Break => Some(Err(io::Error::other("broken by script"))),
                Piece::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    None
                }
            };
            left.pop_front();
            if let Some(sent) = sent {
                return Some((sent, left));
            }
        }
    });
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    let answer = Response::builder().header(CONTENT_TYPE, kind).body(body);
    answer.unwrap()
}

/// A running server. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ScriptedModel {
    server: scripted_model::ScriptedModel,
    stage: Arc<Stage>,
}

#[derive(Debug)]
struct Stage {
    script: Script,
    /// The forms that are taken; any other one is answered with 400.
    forms: Mutex<Vec<Form>>,
    /// What is answered before the script is asked, in this order.
    queue: Mutex<VecDeque<Reply>>,
    abandoned: AtomicUsize,
}

/// Counts an answer that is dropped before it is there.
struct Waiting<'a>(&'a Stage);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

impl ScriptedModel {
    /// Listens on loopback; port 0 lets the system choose.
    ///
    /// # Errors
    /// If the port cannot be listened on.
    pub async fn start(port: u16, script: Script) -> io::Result<Self> {
        let stage = Arc::new(Stage {
            script,
            forms: Mutex::new(vec![Form::JsonSchema, Form::ToolCall, Form::Text]),
            queue: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        });
        let asked = Arc::clone(&stage);
        let answer = move |body: Value| {
            let stage = Arc::clone(&asked);
            async move {
                if !stage.forms.lock().unwrap().contains(&Form::of(&body)) {
                    let refused = "this form of answer is not supported";
                    return error(hyper::StatusCode::BAD_REQUEST, refused);
                }
                let queued = stage.queue.lock().unwrap().pop_front();
                let Some(reply) = queued else {
                    return stage.script.answer(&body);
                };
                let waiting = Waiting(&stage);
                let answer = reply.answer(&body).await;
                std::mem::forget(waiting);
                answer
            }
        };
        let server = scripted_model::ScriptedModel::answering(port, answer).await?;
        Ok(Self { server, stage })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The base URL, as clients want it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The requests that came, in their order.
    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// Takes requests of these forms alone; every other one is answered with 400.
    pub fn take_only(&self, forms: &[Form]) {
        *self.stage.forms.lock().unwrap() = forms.to_vec();
    }

    /// Answers the next request that nothing was said about yet with this.
    pub fn next(&self, reply: Reply) {
        self.stage.queue.lock().unwrap().push_back(reply);
    }

    /// How many answers were given up by the client while they were waited for.
    pub fn abandoned(&self) -> usize {
        self.stage.abandoned.load(Ordering::SeqCst)
    }
}
