//! A chat completion, read from one JSON document or from the chunks of a stream.

use kodo_contract::{ErrorCode, parse_json};
use serde_json::Value;

use crate::Secret;
use crate::failure::Failure;
use crate::sanitize::sanitized;

/// The first choice of a chat completion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The text.
    pub(crate) content: String,
    /// The arguments of the first tool call, if there is one.
    pub(crate) arguments: Option<String>,
    /// Why the model declines; empty if it does not.
    pub(crate) refusal: String,
    /// Why the answer ended: `stop`, `length`, `content_filter`, `tool_calls`.
    pub(crate) finish_reason: Option<String>,
    /// Whether there was any choice.
    pub(crate) has_choice: bool,
}

impl Completion {
    /// Reads a whole answer.
    pub(crate) fn read(bytes: &[u8], secret: Option<&Secret>) -> Result<Self, Failure> {
        let mut completion = Self::default();
        completion.take(bytes, "message", secret)?;
        Ok(completion)
    }

    /// Adds one chunk of a stream.
    pub(crate) fn add(&mut self, bytes: &[u8], secret: Option<&Secret>) -> Result<(), Failure> {
        self.take(bytes, "delta", secret)
    }

    /// Checks that this is a complete answer.
    ///
    /// # Errors
    /// Why it is not: no choices, a refusal, a content filter, the token limit.
    pub(crate) fn check(&self, max_tokens: u32, secret: Option<&Secret>) -> Result<(), Failure> {
        if !self.has_choice {
            return Err(invalid("the provider's answer is empty: it has no choices"));
        }
        if !self.refusal.trim().is_empty() {
            return Err(Failure::new(
                ErrorCode::PlannerDeclined,
                format!("the model declined: {}", sanitized(&self.refusal, secret)),
            ));
        }
        match self.finish_reason.as_deref() {
            Some("content_filter") => Err(filtered()),
            Some("length") => Err(truncated(max_tokens)),
            _ => Ok(()),
        }
    }

    /// The text that should contain the plan.
    pub(crate) fn into_text(self) -> String {
        match self.arguments {
            Some(arguments) if !arguments.trim().is_empty() => arguments,
            _ => self.content,
        }
    }

    fn take(&mut self, bytes: &[u8], part: &str, secret: Option<&Secret>) -> Result<(), Failure> {
        let value = parse_json(bytes).map_err(|error| {
            invalid(format!(
                "the provider's answer is no JSON: {}",
                sanitized(&error.to_string(), secret)
            ))
        })?;
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            let message = error["message"].as_str().or(error.as_str());
            let message = sanitized(message.unwrap_or("no message"), secret);
            return Err(invalid(format!(
                "the provider answered with an error: {message}"
            )));
        }
        let Some(choices) = value["choices"].as_array() else {
            return Err(invalid(
                "the provider's answer is no chat completion: it has no choices",
            ));
        };
        // The chunk of a stream that reports token counts has no choice.
        let Some(choice) = choices
            .iter()
            .find(|it| it["index"].as_u64().unwrap_or(0) == 0)
        else {
            return Ok(());
        };
        self.has_choice = true;
        let message = &choice[part];
        push_content(&mut self.content, &message["content"]);
        self.refusal
            .push_str(message["refusal"].as_str().unwrap_or_default());
        let calls = message["tool_calls"].as_array();
        let first = calls
            .into_iter()
            .flatten()
            .find(|call| call["index"].as_u64().unwrap_or(0) == 0);
        if let Some(call) = first {
            let arguments = self.arguments.get_or_insert_default();
            match &call["function"]["arguments"] {
                Value::String(text) => arguments.push_str(text),
                // Some servers send the arguments as a JSON object instead of a string that contains JSON.
                Value::Object(members) => {
                    arguments.push_str(&serde_json::to_string(members).unwrap_or_default());
                }
                _ => {}
            }
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        Ok(())
    }
}

/// Appends a message's content, which is a string or a list of parts with texts.
fn push_content(text: &mut String, content: &Value) {
    match content {
        Value::String(content) => text.push_str(content),
        Value::Array(parts) => {
            for part in parts {
                text.push_str(part["text"].as_str().unwrap_or_default());
            }
        }
        _ => {}
    }
}

/// The failure of an answer that the provider's content filter removed.
pub(crate) fn filtered() -> Failure {
    Failure::new(
        ErrorCode::PlannerFiltered,
        "the provider's content filter removed the answer",
    )
}

/// The failure of an answer that a token limit cut off.
pub(crate) fn truncated(max_tokens: u32) -> Failure {
    Failure::new(
        ErrorCode::PlannerTruncated,
        format!(
            "the answer was cut off at the limit of {max_tokens} tokens, or at the end of the model's context; \
             OC_MAX_TOKENS sets the limit"
        ),
    )
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::PlannerAnswerInvalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Completion, Failure> {
        Completion::read(value.to_string().as_bytes(), None)
    }

    #[test]
    fn a_whole_answer_is_read_whatever_its_server_prefers() {
        let text =
            read(json!({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}));
        assert_eq!(text.unwrap().content, "a");
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let parts = read(json!({"choices": [{"message": {"content": parts}}]})).unwrap();
        assert_eq!(parts.content, "ab");
        for arguments in [json!("{\"a\":1}"), json!({"a": 1})] {
            let call = json!({"function": {"name": "f", "arguments": arguments}});
            let message = json!({"content": null, "tool_calls": [call]});
            let called = read(json!({"choices": [{"message": message}]})).unwrap();
            assert_eq!(called.arguments.as_deref(), Some("{\"a\":1}"));
        }
        let none = read(json!({"choices": []})).unwrap();
        assert!(!none.has_choice);
    }

    #[test]
    fn chunks_add_up() {
        let mut completion = Completion::default();
        for chunk in [
            json!({"choices": [{"delta": {"role": "assistant", "content": "a"}}]}),
            json!({"choices": [{"delta": {"content": "b"}, "finish_reason": null}]}),
            json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}}]}),
            json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}}]}),
            json!({"choices": [{"index": 1, "delta": {"content": "of another choice"}}]}),
            json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": {}}),
        ] {
            completion.add(chunk.to_string().as_bytes(), None).unwrap();
        }
        assert_eq!(completion.content, "ab");
        assert_eq!(completion.arguments.as_deref(), Some("{}"));
        assert_eq!(completion.finish_reason.as_deref(), Some("stop"));
    }

    #[test]
    fn an_answer_that_is_no_chat_completion_is_an_error_that_says_so() {
        let refused = |value| read(value).unwrap_err().message;
        assert!(refused(json!({"models": []})).contains("no choices"));
        assert!(refused(json!({"error": {"message": "out of memory"}})).contains("out of memory"));
        let broken = Completion::read(b"<html>", None).unwrap_err();
        assert_eq!(broken.code, ErrorCode::PlannerAnswerInvalid);
        assert!(
            Completion::read(b"\"\xff\"", None)
                .unwrap_err()
                .message
                .contains("UTF-8")
        );
    }
}
