//! What a provider says about an error: servers that all call themselves OpenAI-compatible word it in many ways.

use kodo_contract::parse_json;
use serde_json::Value;

/// An error in a provider's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) message: String,
    /// Its code, or its type if it has no code that is a text.
    pub(crate) code: String,
    /// The parameter that is rejected.
    pub(crate) parameter: String,
    /// The HTTP status that the body names.
    pub(crate) status: Option<u16>,
}

impl Told {
    /// Reads the body of an answer whose status says that it is an error. A body that is no JSON is the message itself.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        let value = parse_json(body).unwrap_or_default();
        Self::in_answer(&value)
            .or_else(|| Self::anywhere(&value))
            .unwrap_or_else(|| Self {
                message: String::from_utf8_lossy(body).into_owned(),
                ..Self::default()
            })
    }

    /// The error in an answer whose status says that it is none; `None` if there is none. A member `error` that says
    /// nothing is no error.
    pub(crate) fn in_answer(value: &Value) -> Option<Self> {
        let value = value
            .as_array()
            .and_then(|all| all.first())
            .unwrap_or(value);
        let error = &value["error"];
        if !is_blank(error) {
            return Some(Self::of(error, value));
        }
        let choice = &value["choices"][0]["error"];
        if !is_blank(choice) {
            return Some(Self::of(choice, value));
        }
        (value["object"] == "error").then(|| Self::of(value, value))
    }

    /// The error in a document that is one, wherever it says so.
    pub(crate) fn anywhere(value: &Value) -> Option<Self> {
        let value = value
            .as_array()
            .and_then(|all| all.first())
            .unwrap_or(value);
        let place = ["errors", "detail", "details", "base_resp"]
            .iter()
            .map(|name| &value[name])
            .find(|it| !is_blank(it));
        let told = Self::of(place.unwrap_or(value), value);
        (!told.message.is_empty()).then_some(told)
    }

    /// Reads an error that stands in a document.
    fn of(error: &Value, document: &Value) -> Self {
        match error {
            // Several: the first one.
            Value::Array(all) => match all.iter().find(|it| !is_blank(it)) {
                Some(first) => Self::of(first, document),
                None => Self::default(),
            },
            Value::Object(_) if !is_blank(&error["error"]) => Self::of(&error["error"], error),
            Value::Object(_) => Self::of_members(error),
            // `error` is a word, and the rest is beside it.
            _ => {
                let word = text(error);
                let mut beside = match document.is_object() {
                    true => Self::of_members(document),
                    false => Self::default(),
                };
                if beside.message.is_empty() {
                    beside.message = word;
                } else if !word.is_empty() && !beside.message.contains(&word) {
                    beside.message = format!("{word}: {}", beside.message);
                }
                beside
            }
        }
    }

    fn of_members(error: &Value) -> Self {
        let first = |names: &[&str]| {
            let mut all = names.iter().map(|name| text(&error[name]));
            all.find(|it| !it.is_empty()).unwrap_or_default()
        };
        let mut message = first(&[
            "message",
            "msg",
            "detail",
            "error_msg",
            "error_message",
            "errorMessage",
            "error_description",
            "status_msg",
            "description",
            "reason",
            "title",
        ]);
        // A gateway says in it what the provider behind it said.
        let behind = text(&error["metadata"]["raw"]);
        if !behind.is_empty() && !message.contains(&behind) {
            message = format!("{message} {behind}").trim().to_owned();
        }
        let mut parameter = first(&["param", "parameter", "field"]);
        if parameter.is_empty()
            && let Some(place) = error["loc"].as_array()
        {
            // Where a validator found it: `["body", "response_format", "type"]`.
            let names = place.iter().filter_map(Value::as_str);
            parameter = names.collect::<Vec<_>>().join(" ");
        }
        let codes = [
            "code",
            "error_code",
            "errorCode",
            "status_code",
            "statusCode",
            "type",
            "status",
        ]
        .map(|name| text(&error[name]));
        let is_word = |it: &&String| !it.is_empty() && it.parse::<f64>().is_err();
        let mut statuses = codes.iter().filter_map(|it| it.parse().ok());
        Self {
            message,
            code: codes.iter().find(is_word).cloned().unwrap_or_default(),
            parameter,
            status: statuses.find(|it| (400..600).contains(it)),
        }
    }

    /// The HTTP status that fits an error in an answer whose own status is a success: what it names, otherwise what its
    /// code, its type or its message is about. What says nothing is a failure of the server.
    pub(crate) fn status_in_answer(&self) -> u16 {
        if let Some(status) = self.status {
            return status;
        }
        let code = self.code.to_ascii_lowercase();
        let message = self.message.to_ascii_lowercase();
        let about = |words: &[&str]| {
            let has =
                |word: &&str| code.contains(word) || message.contains(&word.replace('_', " "));
            words.iter().any(has)
        };
        if about(&[
            "rate_limit",
            "too_many_requests",
            "insufficient_quota",
            "resource_exhausted",
            "throttl",
        ]) {
            429
        } else if about(&[
            "invalid_api_key",
            "authentication",
            "unauthorized",
            "permission_denied",
        ]) {
            401
        } else if about(&[
            "invalid_request",
            "bad_request",
            "invalid_argument",
            "badrequest",
            "content_filter",
            "context_length",
        ]) {
            400
        } else if about(&["model_not_found", "not_found_error"]) {
            404
        } else {
            500
        }
    }
}

/// A value as a text, if it is one or a number.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Whether a value says nothing: nothing at all, an empty text, zero, or a container of such values.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::String(text) => text.trim().is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.iter().all(is_blank),
        Value::Object(members) => members.values().all(is_blank),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_found_wherever_a_server_puts_it() {
        for (body, says) in [
            (
                json!({"error": {"message": "too busy", "code": null}}),
                "too busy",
            ),
            (json!({"error": "too busy"}), "too busy"),
            (
                json!({"error": "SyntaxError", "message": "Unexpected token"}),
                "SyntaxError: Unexpected token",
            ),
            (json!({"error": {"error": {"message": "inner"}}}), "inner"),
            (
                json!([{"error": {"code": 429, "message": "of a list"}}]),
                "of a list",
            ),
            (
                json!({"object": "error", "message": "old vLLM", "code": 40_303}),
                "old vLLM",
            ),
            (json!({"detail": "of FastAPI"}), "of FastAPI"),
            (
                json!({"detail": [{"loc": ["body", "seed"], "msg": "extra fields"}]}),
                "extra fields",
            ),
            (
                json!({"status": "failure", "message": "of a gateway"}),
                "of a gateway",
            ),
            (
                json!({"errors": [{"message": "first"}, {"message": "second"}]}),
                "first",
            ),
            (
                json!({"error_code": 17, "error_msg": "daily limit"}),
                "daily limit",
            ),
            (
                json!({"error": {"message": "Provider returned error", "metadata": {"raw": "overloaded"}}}),
                "Provider returned error overloaded",
            ),
            (
                json!({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
                "rate limit",
            ),
            (
                json!({"type": "about:blank", "title": "Bad Gateway", "status": 502}),
                "Bad Gateway",
            ),
        ] {
            assert_eq!(
                Told::of_body(body.to_string().as_bytes()).message,
                says,
                "{body}"
            );
        }
        assert_eq!(Told::of_body(b"<h1>down</h1>").message, "<h1>down</h1>");
    }

    #[test]
    fn an_error_that_says_nothing_is_none_and_every_other_one_counts() {
        for error in [
            json!(null),
            json!(""),
            json!(" "),
            json!(false),
            json!({}),
            json!([]),
            json!(0),
            json!({"message": "", "code": null}),
        ] {
            assert_eq!(
                Told::in_answer(&json!({"choices": [{}], "error": error})),
                None,
                "{error}"
            );
        }
        for (answer, status) in [
            (
                json!({"error": {"message": "Rate limit exceeded", "code": 429}}),
                429,
            ),
            (json!({"error": {"message": "m", "code": "503"}}), 503),
            (
                json!({"error": {"message": "slow down", "type": "rate_limit_error"}}),
                429,
            ),
            (json!({"error": {"message": "Rate limit reached"}}), 429),
            (
                json!({"error": {"message": "m", "type": "invalid_request_error"}}),
                400,
            ),
            (json!({"error": {"message": "out of memory"}}), 500),
            (
                json!({"error": {"type": "overloaded_error", "message": "Overloaded"}}),
                500,
            ),
            (
                json!({"choices": [{"delta": {}, "error": {"code": 502, "message": "m"}}]}),
                502,
            ),
        ] {
            let told = Told::in_answer(&answer).unwrap();
            assert_eq!(told.status_in_answer(), status, "{answer}");
        }
    }
}
