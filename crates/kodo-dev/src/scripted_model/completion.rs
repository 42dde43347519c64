//! Chat completions as servers write them, whole and in chunks.

use serde_json::{Value, json};

use crate::scripted_model::reply::Form;

/// What the one choice of an answer says.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) content: Option<String>,
    /// The function that is called, and its arguments.
    pub(crate) call: Option<(String, String)>,
    pub(crate) refusal: Option<String>,
    pub(crate) finish_reason: &'static str,
}

impl Choice {
    /// This JSON, in the form that the request asks for.
    pub(crate) fn json(value: &Value, request: &Value) -> Self {
        let text = value.to_string();
        match Form::of(request) {
            Form::JsonSchema => Self {
                content: Some(text),
                finish_reason: "stop",
                ..Self::default()
            },
            Form::ToolCall => {
                let function = request["tools"][0]["function"]["name"].as_str();
                Self {
                    call: Some((function.unwrap_or("unnamed").to_owned(), text)),
                    finish_reason: "tool_calls",
                    ..Self::default()
                }
            }
            // A model that nobody holds to a form wraps its answer in words.
            Form::Text => Self {
                content: Some(format!("Here is the plan:\n\n```json\n{text}\n```\n")),
                finish_reason: "stop",
                ..Self::default()
            },
        }
    }

    /// The answer in one document.
    pub(crate) fn whole(&self, request: &Value) -> Value {
        let mut message =
            json!({"role": "assistant", "content": self.content, "refusal": self.refusal});
        if let Some((name, arguments)) = &self.call {
            let function = json!({"name": name, "arguments": arguments});
            message["tool_calls"] =
                json!([{"id": "call_1", "type": "function", "function": function}]);
        }
        json!({
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        })
    }

    /// The answer in chunks, each a server-sent event; the last one is the end mark.
    pub(crate) fn events(&self, request: &Value) -> Vec<String> {
        let mut deltas = vec![json!({"role": "assistant", "content": ""})];
        for piece in pieces(self.content.as_deref()) {
            deltas.push(json!({"content": piece}));
        }
        for piece in pieces(self.refusal.as_deref()) {
            deltas.push(json!({"refusal": piece}));
        }
        if let Some((name, arguments)) = &self.call {
            let function = json!({"name": name, "arguments": ""});
            deltas.push(json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}));
            for piece in pieces(Some(arguments)) {
                deltas
                    .push(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
            }
        }
        let chunk = |delta: Value, finish_reason: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason});
            let chunk = json!({
                "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0,
                "model": request["model"], "choices": [choice],
            });
            format!("data: {chunk}\n\n")
        };
        let mut events: Vec<String> = deltas
            .into_iter()
            .map(|delta| chunk(delta, Value::Null))
            .collect();
        events.push(chunk(json!({}), self.finish_reason.into()));
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}

/// A text in pieces about as long as a model's, cut between characters.
fn pieces(text: Option<&str>) -> Vec<String> {
    let characters: Vec<char> = text.unwrap_or_default().chars().collect();
    characters
        .chunks(16)
        .map(|chunk| chunk.iter().collect())
        .collect()
}
