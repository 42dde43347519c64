//! What a scripted model can be told to answer.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

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
    pub(crate) fn of(body: &Value) -> Self {
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
        let error = serde_json::json!({"error": {"message": message, "type": "error", "param": null, "code": null}});
        Self::Status(status, Vec::new(), error)
    }
}
