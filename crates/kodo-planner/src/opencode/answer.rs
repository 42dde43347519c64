//! Reads the message by which OpenCode answers a prompt.

use kodo_contract::ErrorCode;
use reqwest::StatusCode;
use serde_json::Value;

use crate::Secret;
use crate::completion::{filtered, truncated};
use crate::failure::Failure;
use crate::refusal::Refusal;
use crate::sanitize::sanitized;

/// The text that should contain the plan.
///
/// OpenCode accepts whatever the model submits as a structured answer; the caller validates it. A model that does not
/// use the tool may have written the plan as text.
pub(crate) fn text_of(
    message: &Value,
    max_tokens: u32,
    secret: Option<&Secret>,
) -> Result<String, Failure> {
    let info = &message["info"];
    let error = &info["error"];
    let name = error["name"].as_str().unwrap_or_default();
    if !error.is_null() && name != "StructuredOutputError" {
        return Err(failure(name, &error["data"], max_tokens, secret));
    }
    if !info["structured"].is_null() {
        return Ok(info["structured"].to_string());
    }
    let parts = message["parts"].as_array().into_iter().flatten();
    let texts = parts.filter(|part| part["type"] == "text" && part["ignored"] != true);
    let text: Vec<&str> = texts.filter_map(|part| part["text"].as_str()).collect();
    if text.is_empty() && error.is_null() && info["finish"] == "length" {
        return Err(truncated(max_tokens));
    }
    Ok(text.join("\n"))
}

fn failure(name: &str, data: &Value, max_tokens: u32, secret: Option<&Secret>) -> Failure {
    let message = sanitized(data["message"].as_str().unwrap_or("no reason"), secret);
    match name {
        "ProviderAuthError" => Failure::new(
            ErrorCode::PlannerUnauthorized,
            "the provider does not accept the key that OpenCode has",
        ),
        "MessageOutputLengthError" | "ContextOverflowError" => truncated(max_tokens),
        "ContentFilterError" => filtered(),
        "MessageAbortedError" => Failure::passing(
            ErrorCode::PlannerUnavailable,
            "the answer was aborted in OpenCode",
        ),
        "APIError" => {
            let status = data["statusCode"].as_u64();
            let status = status.and_then(|it| u16::try_from(it).ok());
            let status = status.and_then(|it| StatusCode::from_u16(it).ok());
            match status.filter(|it| !it.is_success()) {
                Some(status) => {
                    let refusal = Refusal {
                        status,
                        in_answer: false,
                        retry_after: None,
                        code: String::new(),
                        parameter: String::new(),
                        message,
                    };
                    refusal.failure(0)
                }
                None => Failure::passing(
                    ErrorCode::PlannerUnreachable,
                    format!("OpenCode got no answer from the model: {message}"),
                ),
            }
        }
        _ => Failure::new(
            ErrorCode::PlannerAnswerInvalid,
            format!(
                "OpenCode could not read the model's answer ({}): {message}",
                sanitized(name, secret)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: Value) -> Result<String, ErrorCode> {
        text_of(&message, 7, None).map_err(|failure| failure.code)
    }

    #[test]
    fn the_structured_answer_counts_and_otherwise_the_text() {
        let structured = json!({"info": {"structured": {"wrong": 1}}, "parts": []});
        assert_eq!(read(structured).unwrap(), r#"{"wrong":1}"#);
        let text = json!({
            "info": {"error": {"name": "StructuredOutputError", "data": {"message": "m", "retries": 0}}},
            "parts": [{"type": "step-start"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        });
        assert_eq!(read(text).unwrap(), "a\nb");
    }

    #[test]
    fn each_error_has_the_code_that_every_provider_has_for_it() {
        let error = |name: &str, data: Value| {
            read(json!({"info": {"error": {"name": name, "data": data}}, "parts": []})).unwrap_err()
        };
        let status = |status: u16| error("APIError", json!({"message": "m", "statusCode": status}));
        assert_eq!(status(429), ErrorCode::PlannerRateLimited);
        assert_eq!(status(503), ErrorCode::PlannerUnavailable);
        assert_eq!(status(401), ErrorCode::PlannerUnauthorized);
        assert_eq!(status(404), ErrorCode::PlannerRejected);
        assert_eq!(error("APIError", json!({})), ErrorCode::PlannerUnreachable);
        assert_eq!(
            error("MessageOutputLengthError", json!({})),
            ErrorCode::PlannerTruncated
        );
        assert_eq!(
            error("UnknownError", json!({})),
            ErrorCode::PlannerAnswerInvalid
        );
    }
}
