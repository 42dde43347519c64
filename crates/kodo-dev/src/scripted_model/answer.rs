//! What a scripted model can be told to answer, and chat completions as servers write them: whole and in chunks.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Response, http};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// How a request asks for the shape of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `response_format` with a JSON Schema.
    JsonSchema,
    /// A tool that has to be called.
    ToolCall,
    /// Words alone.
    Text,
}

impl Form {
    /// What a request's body asks for.
    pub(super) fn of(body: &Value) -> Self {
        if body["response_format"]["type"] == "json_schema" {
            Self::JsonSchema
        } else if body["tools"].is_array() {
            Self::ToolCall
        } else {
            Self::Text
        }
    }
}

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
    pub(super) async fn answer(self, request: &Value) -> http::Result<Response<Body>> {
        let streamed = request["stream"] == true;
        let kind = if streamed { EVENTS } else { JSON };
        let parts = |choice: Choice| match streamed {
            true => choice.events(request),
            false => choice.chunks(request),
        };
        let whole = |choice: Choice| match streamed {
            true => parts(choice).into_iter().map(Piece::Bytes).collect(),
            false => vec![Piece::Bytes(parts(choice).concat().into())],
        };
        let head = Response::builder();
        let (head, kind, pieces) = match self {
            Self::Json(value) => (head, kind, whole(Choice::json(&value, request))),
            Self::Text(text) => (head, kind, whole(Choice::new(Field::Content, text, "stop"))),
            Self::Refusal(words) => (
                head,
                kind,
                whole(Choice::new(Field::Refusal, words, "stop")),
            ),
            Self::Ends(reason) => {
                let begun = r#"{"prompt":"#.to_owned();
                (
                    head,
                    kind,
                    whole(Choice::new(Field::Content, begun, reason)),
                )
            }
            Self::NoChoices => {
                let empty =
                    json!({"id": "chatcmpl-scripted", "object": "chat.completion", "choices": []});
                (head, JSON, vec![Piece::Bytes(empty.to_string().into())])
            }
            Self::Status(status, headers, body) => {
                let head = headers
                    .iter()
                    .fold(head.status(status), |head, (name, value)| {
                        head.header(*name, value)
                    });
                (head, JSON, vec![Piece::Bytes(body.to_string().into())])
            }
            Self::Raw(kind, bytes) => (head, kind, vec![Piece::Bytes(bytes)]),
            Self::Slow(value, pause) => {
                let parts = parts(Choice::json(&value, request)).into_iter();
                let slow = parts.flat_map(|part| [Piece::Pause(pause), Piece::Bytes(part)]);
                (head, kind, slow.collect())
            }
            Self::Half(value) => {
                let mut parts = parts(Choice::json(&value, request));
                parts.truncate(parts.len() / 2);
                // What was sent has to be on its way: a break at once would take it along.
                let end = [Piece::Pause(Duration::from_millis(50)), Piece::Break];
                (
                    head,
                    kind,
                    parts.into_iter().map(Piece::Bytes).chain(end).collect(),
                )
            }
            Self::Hang => std::future::pending().await,
            Self::Endless => {
                let delta = json!({"choices": [{"delta": {"content": "x".repeat(65_536)}}]});
                let filler = match streamed {
                    true => format!("data: {delta}\n\n"),
                    false => " ".repeat(65_536),
                };
                (head, kind, vec![Piece::Forever(filler.into())])
            }
        };
        let mut head = head.header(CONTENT_TYPE, kind);
        if let [Piece::Bytes(all)] = pieces.as_slice() {
            head = head.header(CONTENT_LENGTH, all.len());
        }
        head.body(body(pieces))
    }
}

/// What a choice consists of.
enum Field {
    Content,
    Refusal,
    /// The arguments of the function of this name.
    Call(String),
}

/// The one choice of an answer: its field, the text in it, and why it ends.
struct Choice {
    field: Field,
    text: String,
    finish_reason: &'static str,
}

impl Choice {
    fn new(field: Field, text: String, finish_reason: &'static str) -> Self {
        Self {
            field,
            text,
            finish_reason,
        }
    }

    /// This JSON, in the form that the request asks for.
    fn json(value: &Value, request: &Value) -> Self {
        match Form::of(request) {
            Form::JsonSchema => Self::new(Field::Content, value.to_string(), "stop"),
            Form::ToolCall => {
                let function = request["tools"][0]["function"]["name"].as_str();
                let function = function.unwrap_or("unnamed").to_owned();
                Self::new(Field::Call(function), value.to_string(), "tool_calls")
            }
            // A model that nobody holds to a form wraps its answer in words.
            Form::Text => {
                let text = format!("Here is the plan:\n\n```json\n{value}\n```\n");
                Self::new(Field::Content, text, "stop")
            }
        }
    }

    /// The answer as one document, cut as a network could cut it.
    fn chunks(&self, request: &Value) -> Vec<Bytes> {
        let mut message = json!({"role": "assistant", "content": null, "refusal": null});
        match &self.field {
            Field::Content => message["content"] = self.text.as_str().into(),
            Field::Refusal => message["refusal"] = self.text.as_str().into(),
            Field::Call(name) => {
                let function = json!({"name": name, "arguments": self.text});
                message["tool_calls"] =
                    json!([{"id": "call_1", "type": "function", "function": function}]);
            }
        }
        let whole = json!({
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        });
        let whole = whole.to_string();
        whole
            .as_bytes()
            .chunks(64)
            .map(Bytes::copy_from_slice)
            .collect()
    }

    /// The answer in server-sent events, with pieces about as long as a model's; the last one is the end mark.
    fn events(&self, request: &Value) -> Vec<Bytes> {
        let call = |rest: Value| json!({"tool_calls": [rest]});
        let mut deltas = vec![json!({"role": "assistant", "content": ""})];
        if let Field::Call(name) = &self.field {
            let function = json!({"name": name, "arguments": ""});
            deltas.push(call(
                json!({"index": 0, "id": "call_1", "type": "function", "function": function}),
            ));
        }
        let characters: Vec<char> = self.text.chars().collect();
        deltas.extend(characters.chunks(16).map(|piece| {
            let piece: String = piece.iter().collect();
            match self.field {
                Field::Content => json!({"content": piece}),
                Field::Refusal => json!({"refusal": piece}),
                Field::Call(_) => call(json!({"index": 0, "function": {"arguments": piece}})),
            }
        }));
        let end = (json!({}), json!(self.finish_reason));
        let deltas = deltas
            .into_iter()
            .map(|delta| (delta, Value::Null))
            .chain([end]);
        let events = deltas.map(|(delta, finish_reason)| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
            let chunk = json!({
                "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0,
                "model": request["model"], "choices": [choice],
            });
            Bytes::from(format!("data: {chunk}\n\n"))
        });
        events.chain([Bytes::from("data: [DONE]\n\n")]).collect()
    }
}

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

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

fn body(pieces: Vec<Piece>) -> Body {
    let frames = unfold(VecDeque::from(pieces), |mut left| async {
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
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
