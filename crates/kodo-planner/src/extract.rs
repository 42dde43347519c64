//! Finds the JSON object in a text that a model wrote around it.

use kodo_contract::{Plan, decode, parse_json};
use serde_json::Value;

/// The most opening braces that are tried as the beginning of an object.
const TRIES: usize = 64;

/// The object in a text that is most likely the plan: the whole text, otherwise the first object that is a valid plan,
/// otherwise the first object, so that its mistakes can be shown to the model.
pub(crate) fn object_in(text: &str) -> Option<Value> {
    // A reasoning model writes its thoughts before its answer.
    let text = text.rsplit_once("</think>").map_or(text, |(_, rest)| rest);
    if let Ok(value @ Value::Object(_)) = parse_json(text.trim().as_bytes()) {
        return Some(value);
    }
    let mut first = None;
    let mut at = 0;
    for _ in 0..TRIES {
        let Some(begin) = text.get(at..).and_then(|rest| rest.find('{')) else {
            break;
        };
        let begin = at + begin;
        at = begin + 1;
        let Some(end) = end_of_object(&text.as_bytes()[begin..]) else {
            continue;
        };
        let Ok(value) = parse_json(&text.as_bytes()[begin..begin + end]) else {
            continue;
        };
        if decode::<Plan>(&value).is_ok() {
            return Some(value);
        }
        // The objects inside of this one are parts of it.
        at = begin + end;
        first.get_or_insert(value);
    }
    first
}

/// The length of the object at the beginning of the bytes; `None` if it does not end.
fn end_of_object(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAN: &str = r#"{"prompt":"a } b \" {","toolCalls":[],"responses":[{}],"diffs":[]}"#;

    #[test]
    fn a_plan_is_found_in_whatever_a_model_writes_around_it() {
        let plan = parse_json(PLAN.as_bytes()).unwrap();
        for text in [
            PLAN.to_owned(),
            format!("\n {PLAN}\n"),
            format!("Sure! Here is the plan:\n```json\n{PLAN}\n```\nAnything else?"),
            format!("<think>maybe {{\"prompt\": 1}}</think>{PLAN}"),
            format!("An example would be {{\"prompt\": 1}}, but: {PLAN}"),
            format!("{{unquoted: braces}} {PLAN}"),
            format!("a {{ that does not end. {PLAN}"),
        ] {
            assert_eq!(object_in(&text), Some(plan.clone()), "{text}");
        }
    }

    #[test]
    fn without_a_plan_the_first_object_is_shown_and_without_one_nothing() {
        assert_eq!(
            object_in("a {\"b\":{\"c\":1}} {\"d\":2}"),
            Some(json!({"b": {"c": 1}}))
        );
        for text in ["", "no", "[1]", "{", "{]", "\"{", "}{"] {
            assert_eq!(object_in(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_full_of_braces_costs_no_more_than_the_tries() {
        let braces = "{".repeat(1 << 20);
        assert_eq!(object_in(&braces), None);
    }
}
