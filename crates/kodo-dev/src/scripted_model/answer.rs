//! Chat completions as servers write them, whole and in events.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

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
    pub fn of(body: &Value) -> Self {
        if body["response_format"]["type"] == "json_schema" {
            Self::JsonSchema
        } else if body["tools"].is_array() {
            Self::ToolCall
        } else {
            Self::Text
        }
    }
}

/// The one choice of a chat completion.
#[derive(Clone, Debug)]
pub struct Choice {
    /// `content`, `refusal`, or the name of the function that is called.
    pub field: String,
    /// What stands in that field, or the function's arguments.
    pub text: String,
    /// Why the answer ends.
    pub finish_reason: &'static str,
}

impl Choice {
    /// A text as `content` or as `refusal`.
    pub fn new(field: &str, text: impl Into<String>, finish_reason: &'static str) -> Self {
        Self {
            field: field.to_owned(),
            text: text.into(),
            finish_reason,
        }
    }

    /// This JSON, in the form that the request asks for.
    pub fn json(value: &Value, request: &Value) -> Self {
        match Form::of(request) {
            Form::JsonSchema => Self::new("content", value.to_string(), "stop"),
            Form::ToolCall => {
                let function = request["tools"][0]["function"]["name"].as_str();
                Self::new(
                    function.unwrap_or("unnamed"),
                    value.to_string(),
                    "tool_calls",
                )
            }
            // A model that nobody holds to a form wraps its answer in words.
            Form::Text => {
                let text = format!("Here is the plan:\n\n```json\n{value}\n```\n");
                Self::new("content", text, "stop")
            }
        }
    }

    /// The content type and the answer: one document, or server-sent events if the request asks for a stream.
    pub fn parts(&self, request: &Value) -> (&'static str, Vec<Bytes>) {
        if request["stream"] == true {
            ("text/event-stream", self.events(request))
        } else {
            ("application/json", vec![self.document(request)])
        }
    }

    fn is_call(&self) -> bool {
        !["content", "refusal"].contains(&self.field.as_str())
    }

    fn document(&self, request: &Value) -> Bytes {
        let mut message = json!({"role": "assistant", "content": null, "refusal": null});
        if self.is_call() {
            let function = json!({"name": self.field, "arguments": self.text});
            message["tool_calls"] =
                json!([{"id": "call_1", "type": "function", "function": function}]);
        } else {
            message[&self.field] = self.text.as_str().into();
        }
        let whole = json!({
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        });
        whole.to_string().into()
    }

    /// Pieces about as long as a model's; the last one is the end mark.
    fn events(&self, request: &Value) -> Vec<Bytes> {
        let call = |rest: Value| json!({"tool_calls": [rest]});
        let mut deltas = vec![json!({"role": "assistant", "content": ""})];
        if self.is_call() {
            let function = json!({"name": self.field, "arguments": ""});
            deltas.push(call(
                json!({"index": 0, "id": "call_1", "type": "function", "function": function}),
            ));
        }
        let characters: Vec<char> = self.text.chars().collect();
        deltas.extend(characters.chunks(16).map(|piece| {
            let piece: String = piece.iter().collect();
            match self.is_call() {
                true => call(json!({"index": 0, "function": {"arguments": piece}})),
                false => json!({&self.field: piece}),
            }
        }));
        let deltas = deltas.into_iter().map(|delta| (delta, Value::Null));
        let deltas = deltas.chain([(json!({}), json!(self.finish_reason))]);
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

    /// The answer, all at once.
    pub fn whole(&self, request: &Value) -> Response<Body> {
        let (kind, parts) = self.parts(request);
        whole(kind, parts.concat())
    }
}

/// An answer with status 200 that goes out at once.
pub fn whole(content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// An error as OpenAI words it.
pub fn error(status: hyper::StatusCode, message: &str) -> Response<Body> {
    let error =
        json!({"error": {"message": message, "type": "error", "param": null, "code": null}});
    let mut answer = whole("application/json", error.to_string());
    *answer.status_mut() = status;
    answer
}
