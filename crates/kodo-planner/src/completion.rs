//! A chat completion, read from one JSON document or from the chunks of a stream.

use kodo_contract::{ErrorCode, JsonError, parse_json};
use serde_json::Value;

use crate::Secret;
use crate::dialect::FUNCTION;
use crate::failure::Failure;
use crate::halves;
use crate::refusal::Refusal;
use crate::sanitize::sanitized;
use crate::told::Told;
use crate::unanswered::Unanswered;

/// One choice of a chat completion: that of the lowest index, whichever comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The text of the answer, without the model's reasoning as far as the server tells them apart.
    pub(crate) content: String,
    /// The tool calls, in order.
    calls: Vec<Call>,
    /// Why the model declines; empty if it does not.
    pub(crate) refusal: String,
    /// Why the answer ended: `stop`, `length`, `content_filter`, `tool_calls`.
    pub(crate) finish_reason: Option<String>,
    /// The index of the choice, once there was one.
    choice: Option<u64>,
    /// Whether texts have private characters for halves of surrogate pairs.
    halves: bool,
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Completion {
    /// Reads a whole answer.
    pub(crate) fn read(bytes: &[u8], secret: Option<&Secret>) -> Result<Self, Unanswered> {
        let mut completion = Self::default();
        let value = completion.take(bytes, "message", secret)?;
        if completion.choice.is_none() && !value["choices"].is_array() {
            return Err(match Told::anywhere(&value) {
                Some(told) => Refusal::in_answer(told, secret).into(),
                None => {
                    let reason = "the provider's answer is no chat completion: it has no choices";
                    invalid(reason).into()
                }
            });
        }
        Ok(completion)
    }

    /// Adds one chunk of a stream. One without a choice, such as that with token counts, adds nothing.
    pub(crate) fn add(&mut self, bytes: &[u8], secret: Option<&Secret>) -> Result<(), Unanswered> {
        self.take(bytes, "delta", secret).map(drop)
    }

    /// Checks that this is a complete answer.
    ///
    /// # Errors
    /// Why it is not: no choices, a refusal, a content filter, the token limit, a server that gave up.
    pub(crate) fn check(&self, max_tokens: u32, secret: Option<&Secret>) -> Result<(), Failure> {
        if self.choice.is_none() {
            return Err(invalid("the provider's answer is empty: it has no choices"));
        }
        if !self.refusal.trim().is_empty() {
            return Err(Failure::new(
                ErrorCode::PlannerDeclined,
                format!("the model declined: {}", sanitized(&self.refusal, secret)),
            ));
        }
        let reason = self.finish_reason.as_deref().unwrap_or_default();
        match reason.to_ascii_lowercase().as_str() {
            "content_filter" | "content_filtered" | "safety" | "recitation" | "blocklist"
            | "prohibited_content" | "sensitive" | "spii" => Err(filtered()),
            "refusal" => Err(Failure::new(
                ErrorCode::PlannerDeclined,
                "the model declined",
            )),
            "length"
            | "max_tokens"
            | "max_output_tokens"
            | "max_length"
            | "model_length"
            | "context_length_exceeded"
            | "model_context_window_exceeded" => Err(truncated(max_tokens)),
            "error"
            | "network_error"
            | "insufficient_system_resource"
            | "abort"
            | "aborted"
            | "cancelled"
            | "canceled"
            | "timeout"
            | "interrupted" => {
                let reason = sanitized(reason, secret);
                Err(incomplete(&format!(
                    "the provider ended the answer in its middle ({reason})"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The text that should contain the plan: the arguments of the call that hands it in, otherwise the text.
    pub(crate) fn into_text(self) -> String {
        let named = self.calls.iter().any(|call| call.name.contains(FUNCTION));
        let calls = self
            .calls
            .iter()
            .filter(|call| !named || call.name.contains(FUNCTION));
        let says_something = |arguments: &&str| {
            let parsed = parse_json(arguments.as_bytes()).ok();
            let empty =
                parsed.is_some_and(|it| it.as_object().is_some_and(serde_json::Map::is_empty));
            !arguments.is_empty() && !empty
        };
        let arguments: Vec<&str> = calls
            .map(|call| call.arguments.trim())
            .filter(says_something)
            .collect();
        let text = match arguments.is_empty() {
            true => self.content,
            // If there are several, they are several plans.
            false => arguments.join("\n"),
        };
        match self.halves {
            true => halves::joined(&text),
            false => text,
        }
    }

    /// Adds what a document says. `part` is the member of a choice that has its message.
    fn take(
        &mut self,
        bytes: &[u8],
        part: &str,
        secret: Option<&Secret>,
    ) -> Result<Value, Unanswered> {
        let (mut value, has_halves) =
            halves::parse(bytes).map_err(|error| no_json(&error, secret))?;
        self.halves |= has_halves;
        if let Some(told) = Told::in_answer(&value) {
            return Err(Refusal::in_answer(told, secret).into());
        }
        let index = |choice: &Value| choice["index"].as_u64().unwrap_or(0);
        // Not by `[]`: what is no object has no members to change.
        let choices = value.get_mut("choices").and_then(Value::as_array_mut);
        let choices = choices.into_iter().flatten();
        let Some(choice) = choices
            .filter(|it| it.is_object())
            .min_by_key(|it| index(it))
        else {
            return Ok(value);
        };
        let index = index(choice);
        match self.choice {
            Some(taken) if taken < index => return Ok(value),
            // What came before is of a choice that does not count.
            Some(taken) if taken > index => {
                *self = Self {
                    halves: self.halves,
                    ..Self::default()
                };
            }
            _ => {}
        }
        self.choice = Some(index);
        let reason = choice["finish_reason"].as_str();
        // Some servers say so in every chunk before the last one.
        if let Some(reason) = reason.filter(|it| !["", "null"].contains(it)) {
            self.finish_reason = Some(reason.to_owned());
        }
        let mut message = choice[part].take();
        // A server that streams whole answers, or the other way round.
        if message.is_null() && self.content.is_empty() && self.calls.is_empty() {
            let other = if part == "delta" { "message" } else { "delta" };
            message = choice[other].take();
        }
        if message["extra_content"]["google"]["thought"] != true {
            self.push_content(&message["content"]);
        }
        self.refusal
            .push_str(message["refusal"].as_str().unwrap_or_default());
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            self.push_call(call);
        }
        if message["function_call"].is_object() {
            self.push_call(&serde_json::json!({"index": 0, "function": message["function_call"]}));
        }
        Ok(value)
    }

    /// Appends a message's content: a text, a list of parts, or one part. Parts of other types than text are reasoning, or
    /// nothing that a plan could be in.
    fn push_content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.content.push_str(text),
            Value::Array(parts) => parts.iter().for_each(|part| self.push_content(part)),
            Value::Object(part) if part.contains_key("type") || part.contains_key("text") => {
                match part.get("type").and_then(Value::as_str) {
                    None | Some("text" | "output_text") if content["thought"] != true => {
                        let text = content["text"]
                            .as_str()
                            .or(content["text"]["value"].as_str());
                        self.content.push_str(text.unwrap_or_default());
                    }
                    Some("refusal") => {
                        self.refusal
                            .push_str(content["refusal"].as_str().unwrap_or_default());
                    }
                    _ => {}
                }
            }
            // Some servers parse JSON that was asked for.
            Value::Object(_) => self.content.push_str(&content.to_string()),
            _ => {}
        }
    }

    /// Adds a tool call, or a part of one.
    fn push_call(&mut self, part: &Value) {
        let index = part["index"].as_u64();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, function) = (text(&part["id"]), &part["function"]);
        let name = text(&function["name"]);
        let same = |call: &Call| match index {
            Some(_) => call.index == index,
            // A server that counts none may name the call, or go on with the last one.
            None => id.is_empty() || call.id == id,
        };
        // Servers that send whole calls may give all of them one index. Others give each part an id of its own.
        let begins = |call: &Call| {
            let other = call.id != id || id.is_empty();
            !name.is_empty() && other && parse_json(call.arguments.as_bytes()).is_ok()
        };
        let place = self.calls.iter().rposition(same);
        let place = match place.filter(|&it| !begins(&self.calls[it])) {
            Some(place) => place,
            None => {
                self.calls.push(Call {
                    index,
                    id,
                    ..Call::default()
                });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[place];
        if call.name.is_empty() {
            call.name = name;
        }
        match &function["arguments"] {
            Value::String(text) => call.arguments.push_str(text),
            // Some servers send the arguments as a JSON object instead of a string that contains JSON.
            Value::Object(members) => {
                call.arguments
                    .push_str(&serde_json::to_string(members).unwrap_or_default());
            }
            _ => {}
        }
    }
}

fn no_json(error: &JsonError, secret: Option<&Secret>) -> Failure {
    let reason = sanitized(&error.to_string(), secret);
    match error {
        // Cut off in good order, as some proxies do.
        JsonError::Malformed(error) if error.is_eof() => incomplete(&format!(
            "the provider's answer ends in its middle ({reason})"
        )),
        _ => invalid(format!("the provider's answer is no JSON: {reason}")),
    }
}

/// The failure of an answer that ended in its middle: the same request may get a whole one.
pub(crate) fn incomplete(what: &str) -> Failure {
    Failure::passing(ErrorCode::PlannerAnswerIncomplete, what)
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

/// The failure of a response that is no answer of a model: a server that starts or is overloaded, or a proxy before it, may
/// give a whole answer a moment later.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::passing(ErrorCode::PlannerAnswerInvalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Completion, Failure> {
        Completion::read(value.to_string().as_bytes(), None).map_err(|it| it.failure(0))
    }

    fn text(message: Value) -> String {
        let choice = json!({"message": message, "finish_reason": "stop"});
        read(json!({"choices": [choice]})).unwrap().into_text()
    }

    fn of_chunks(chunks: &[Value]) -> Completion {
        let mut completion = Completion::default();
        for chunk in chunks {
            let added = completion.add(chunk.to_string().as_bytes(), None);
            added.map_err(|it| it.failure(0)).unwrap();
        }
        completion
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"delta": delta, "finish_reason": null}]})
    }

    fn call(call: Value) -> Value {
        delta(json!({"tool_calls": [call]}))
    }

    #[test]
    fn a_whole_answer_is_read_whatever_its_server_prefers() {
        for content in [
            json!("ab"),
            json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            json!([{"text": "a"}, "b"]),
            json!([{"type": "output_text", "text": {"value": "ab"}}]),
            json!([{"type": "reasoning", "text": "D"}, {"type": "text", "text": "ab"}]),
            json!([{"type": "thinking", "thinking": [{"type": "text", "text": "D"}]}, {"type": "text", "text": "ab"}]),
            json!([{"type": "reasoning_text", "text": "D"}, {"type": "summary_text", "text": "D"}, {"type": "text", "text": "ab"}]),
            json!([{"text": "D", "thought": true}, {"text": "ab"}]),
        ] {
            assert_eq!(text(json!({"content": content})), "ab", "{content}");
        }
        let reasoned = json!({"content": "ab", "reasoning": "D", "reasoning_content": "D", "thinking": "D", "reasoning_details": [{"text": "D"}]});
        assert_eq!(text(reasoned), "ab");
        assert_eq!(text(json!({"content": null, "reasoning_content": "D"})), "");
        assert_eq!(text(json!({"content": {"a": 1}})), r#"{"a":1}"#);
        let none = read(json!({"choices": []})).unwrap();
        let failure = none.check(1, None).unwrap_err();
        assert!(failure.passes_after.is_some(), "{failure}");
    }

    #[test]
    fn the_call_that_hands_the_plan_in_counts_and_otherwise_the_text() {
        for arguments in [json!("{\"a\":1}"), json!({"a": 1})] {
            let function = json!({"name": FUNCTION, "arguments": arguments});
            let other = json!({"function": {"name": "other", "arguments": "{\"b\":2}"}});
            let message = json!({"content": "D", "tool_calls": [other, {"function": function}]});
            assert_eq!(text(message), "{\"a\":1}");
            assert_eq!(text(json!({"function_call": function})), "{\"a\":1}");
        }
        for arguments in [json!(""), json!("{}"), json!(null)] {
            let function = json!({"name": FUNCTION, "arguments": arguments});
            let message = json!({"content": "P", "tool_calls": [{"function": function}]});
            assert_eq!(text(message), "P");
        }
        let two = ["{\"a\":1}", "{\"a\":2}"]
            .map(|it| json!({"function": {"name": FUNCTION, "arguments": it}}));
        assert_eq!(text(json!({"tool_calls": two})), "{\"a\":1}\n{\"a\":2}");
    }

    #[test]
    fn chunks_add_up() {
        let completion = of_chunks(&[
            delta(json!({"role": "assistant", "content": "a", "reasoning_content": "D"})),
            json!({"choices": null, "usage": {"total_tokens": 1}}),
            json!({"usage": {}}),
            json!({"choices": []}),
            json!({"type": "ping"}),
            json!({"choices": [{"delta": {"content": "b"}, "finish_reason": ""}], "error": ""}),
            json!({"choices": [{"index": 1, "delta": {"content": "of another choice"}}]}),
            delta(json!({"content": "D", "extra_content": {"google": {"thought": true}}})),
            delta(json!(null)),
            json!({"choices": [{"finish_reason": "stop"}]}),
            json!({"choices": [], "usage": {}}),
        ]);
        assert_eq!(completion.finish_reason.as_deref(), Some("stop"));
        assert_eq!(completion.into_text(), "ab");
        let whole = json!({"choices": [{"message": {"content": "d"}, "finish_reason": "stop"}]});
        assert_eq!(
            of_chunks(&[delta(json!({"role": "assistant"})), whole]).into_text(),
            "d"
        );
        let later = json!({"choices": [{"index": 3, "delta": {"content": "c"}}]});
        assert_eq!(of_chunks(std::slice::from_ref(&later)).into_text(), "c");
        let first = json!({"choices": [{"index": 0, "delta": {"content": "d"}}]});
        assert_eq!(of_chunks(&[later, first]).into_text(), "d");
        let both = json!({"choices": [{"index": 1, "message": {"content": "e"}},
                                      {"index": 0, "message": {"content": "f"}}]});
        assert_eq!(read(both).unwrap().into_text(), "f");
        let halves = ["a\\ud83d", "\\ude00b"]
            .map(|it| format!("{{\"choices\":[{{\"delta\":{{\"content\":\"{it}\"}}}}]}}"));
        let mut completion = Completion::default();
        for chunk in halves {
            assert!(completion.add(chunk.as_bytes(), None).is_ok());
        }
        assert_eq!(completion.into_text(), "a😀b");
    }

    #[test]
    fn the_parts_of_a_call_are_put_together_however_they_are_counted() {
        let parts = |index: Value, ids: [&str; 2], names: [&str; 2]| {
            let part = |at: usize, arguments: &str| {
                call(
                    json!({"index": index, "id": ids[at], "function": {"name": names[at], "arguments": arguments}}),
                )
            };
            of_chunks(&[part(0, "{\"a\""), part(1, ":1}")]).into_text()
        };
        for index in [json!(0), json!(1), json!(7), json!(null)] {
            for ids in [["x", ""], ["x", "x"], ["", ""]] {
                for names in [[FUNCTION, ""], [FUNCTION, FUNCTION], ["", ""]] {
                    assert_eq!(
                        parts(index.clone(), ids, names),
                        "{\"a\":1}",
                        "{index} {ids:?} {names:?}"
                    );
                }
            }
        }
        // An id of its own for every part.
        assert_eq!(parts(json!(0), ["x", "y"], [FUNCTION, ""]), "{\"a\":1}");
        // Whole calls that all have the same index, or none.
        for index in [json!(0), json!(null)] {
            let whole = |id: &str, arguments: &str| {
                call(
                    json!({"index": index, "id": id, "function": {"name": FUNCTION, "arguments": arguments}}),
                )
            };
            let both = of_chunks(&[whole("x", "{\"a\":1}"), whole("y", "{\"a\":2}")]);
            assert_eq!(both.into_text(), "{\"a\":1}\n{\"a\":2}");
        }
    }

    #[test]
    fn an_answer_that_did_not_end_by_itself_is_none() {
        let code = |reason: &str| {
            let choice = json!({"message": {"content": "{}"}, "finish_reason": reason});
            let checked = read(json!({"choices": [choice]})).unwrap().check(7, None);
            checked.err().map(|failure| failure.code)
        };
        for good in [
            "stop",
            "eos",
            "end_turn",
            "tool_calls",
            "function_call",
            "STOP",
        ] {
            assert_eq!(code(good), None, "{good}");
        }
        for (reason, expected) in [
            ("length", ErrorCode::PlannerTruncated),
            ("MAX_TOKENS", ErrorCode::PlannerTruncated),
            ("content_filter", ErrorCode::PlannerFiltered),
            ("SAFETY", ErrorCode::PlannerFiltered),
            (
                "insufficient_system_resource",
                ErrorCode::PlannerAnswerIncomplete,
            ),
            ("error", ErrorCode::PlannerAnswerIncomplete),
        ] {
            assert_eq!(code(reason), Some(expected), "{reason}");
        }
    }

    #[test]
    fn an_answer_that_is_no_chat_completion_is_an_error_that_says_so() {
        let refused = |value| read(value).unwrap_err();
        assert!(
            refused(json!({"models": []}))
                .message
                .contains("no choices")
        );
        let failed = refused(json!({"error": {"message": "out of memory"}}));
        assert_eq!(failed.code, ErrorCode::PlannerUnavailable);
        assert!(failed.message.contains("out of memory") && failed.passes_after.is_some());
        let limited = refused(json!({"error": {"message": "Rate limit exceeded", "code": 429}}));
        assert_eq!(limited.code, ErrorCode::PlannerRateLimited);
        let said = refused(json!({"error": "SyntaxError", "message": "Unexpected token"}));
        assert!(
            said.message.contains("SyntaxError: Unexpected token"),
            "{said}"
        );
        let of_bytes = |bytes: &[u8]| Completion::read(bytes, None).unwrap_err().failure(0);
        let broken = of_bytes(b"<html>");
        assert_eq!(broken.code, ErrorCode::PlannerAnswerInvalid);
        assert!(broken.passes_after.is_some());
        // A body that is cut at any of its bytes.
        let whole = r#"{"choices":[{"message":{"content":"ü"},"finish_reason":"stop"}]}"#;
        for at in 0..whole.len() {
            let cut = of_bytes(&whole.as_bytes()[..at]);
            assert!(cut.passes_after.is_some(), "cut at {at}: {cut}");
        }
        for odd in [
            "null",
            "[]",
            "{}",
            "true",
            "\"\"",
            "0",
            "[null]",
            "{\"choices\":{}}",
        ] {
            assert!(of_bytes(odd.as_bytes()).passes_after.is_some(), "{odd}");
        }
        assert!(of_bytes(b"\"\xff\"").message.contains("UTF-8"));
        for cut in [&b"{\"choices\":[{\"mess"[..], b""] {
            assert_eq!(of_bytes(cut).code, ErrorCode::PlannerAnswerIncomplete);
        }
    }
}
