//! Validation at the boundaries: a value enters through [`decode`] and leaves through [`encode`].

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Invalid, Schema, Violation, read_json, storable::find_unstorable};

/// A type that crosses a boundary, with the JSON Schema that says what it may look like there.
pub trait Boundary: Serialize + DeserializeOwned {
    /// The name in error texts: `invalid Intent: …`.
    const NAME: &'static str;

    /// Whether values of this type are written to Postgres, and so must pass [`check_storable`](crate::check_storable) as
    /// well.
    const STORED: bool;

    /// The schema, compiled once.
    fn schema() -> &'static Schema;
}

/// Validates a value that comes in, then deserializes it.
///
/// # Errors
///
/// Everything that is wrong with it, at once: first what the schema says, then what Postgres could
/// not store.
pub fn decode<T: Boundary>(value: &Value) -> Result<T, Invalid> {
    check::<T>(value)?;
    read_json(value).map_err(|error| disagreement::<T>(&error))
}

/// Serializes a value that goes out, then validates the result.
///
/// # Errors
///
/// As [`decode`]; an error here is a bug of the code that made the value.
pub fn encode<T: Boundary>(value: &T) -> Result<Value, Invalid> {
    let json = serde_json::to_value(value).map_err(|error| disagreement::<T>(&error))?;
    check::<T>(&json)?;
    Ok(json)
}

fn check<T: Boundary>(value: &Value) -> Result<(), Invalid> {
    let mut violations = T::schema().one_more(value);
    // A value that is no object has this one violation; what Postgres could not store is not checked as well.
    let mut more = false;
    if T::STORED && value.is_object() {
        let (mut unstorable, others) = find_unstorable(value);
        violations.append(&mut unstorable);
        more = others;
    }
    if violations.is_empty() {
        return Ok(());
    }
    Violation::limit(&mut violations, more);
    Err(Invalid {
        name: T::NAME,
        violations,
    })
}

/// Schema and type disagree. The tests check that they never do; if they did, the value would be refused.
fn disagreement<T: Boundary>(error: &serde_json::Error) -> Invalid {
    Invalid {
        name: T::NAME,
        violations: vec![Violation {
            instance_path: String::new(),
            schema_path: "#".to_owned(),
            keyword: "type".to_owned(),
            params: json!({"type": T::NAME}),
            message: format!("must be {}: {error}", T::NAME),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Intent, Phase, Plan, RunId, RunStatus, RunView, StepView, ToolCall, parse_json};

    fn intent(text: &str) -> Result<Intent, Invalid> {
        decode(&parse_json(text.as_bytes()).unwrap())
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_contract() {
        let error =
            intent(r#"{"goal":"\u0000","extra":1,"connectors":[2],"inputs":{"n":1e200000}}"#);
        assert_eq!(
            error.unwrap_err().to_string(),
            "invalid Intent: data must have required property 'constraints'; \
             data must NOT have additional properties; data/connectors/0 must be string; \
             data/goal must NOT contain the character U+0000; \
             data/inputs/n must NOT have more than 131072 digits before or 16383 digits after the decimal point"
        );
    }

    #[test]
    fn the_example_of_the_contract_is_given_word_for_word() {
        let error = intent(r#"{"goal":"","inputs":{},"constraints":{}}"#).unwrap_err();
        assert_eq!(
            serde_json::to_string(&error.violations[0]).unwrap(),
            concat!(
                r##"{"instancePath":"/goal","schemaPath":"#/properties/goal/minLength","keyword":"minLength","##,
                r##""params":{"limit":1},"message":"must NOT have fewer than 1 characters"}"##
            )
        );
    }

    #[test]
    fn a_body_that_is_no_object_has_one_violation() {
        for body in [
            "[]",
            "null",
            "\"x\"",
            "1",
            "true",
            r#""\u0000""#,
            "[1e200000]",
        ] {
            assert_eq!(
                intent(body).unwrap_err().to_string(),
                "invalid Intent: data must be object"
            );
        }
    }

    #[test]
    fn what_is_said_of_a_body_full_of_mistakes_of_both_kinds_is_bounded_and_ends_with_that() {
        let text = format!(
            r#"{{"goal":"\u0000","inputs":{{}},"constraints":{{}},"connectors":[{}]}}"#,
            vec!["1"; 300_000].join(",")
        );
        let error = intent(&text).unwrap_err();
        assert_eq!(error.violations.len(), crate::MAX_VIOLATIONS + 1);
        let last = Violation::more(crate::MAX_VIOLATIONS);
        assert_eq!(error.violations[crate::MAX_VIOLATIONS], last);
        let said = error.to_string();
        assert!(said.len() < 100_000);
        assert!(
            said.ends_with("; data must NOT have more violations than the 1000 that are listed"),
            "{said}"
        );
    }

    #[test]
    fn numbers_keys_and_depth_survive_both_gates() {
        let deep = "[".repeat(126) + &"]".repeat(126);
        let text = format!(
            r#"{{"goal":"g","inputs":{{"z":12345678901234567890,"a":1.10,"tie":1000000000000000.3,"deep":{deep}}},"constraints":{{}}}}"#
        );
        assert_eq!(encode(&intent(&text).unwrap()).unwrap().to_string(), text);
    }

    #[test]
    fn null_connectors_are_the_same_as_none() {
        let with_null = intent(r#"{"goal":"g","inputs":{},"constraints":{},"connectors":null}"#);
        let without = intent(r#"{"goal":"g","inputs":{},"constraints":{}}"#);
        assert_eq!(with_null, without);
        let empty = intent(r#"{"goal":"g","inputs":{},"constraints":{},"connectors":[]}"#);
        assert_eq!(empty.unwrap().connectors, Some(vec![]));
    }

    #[test]
    fn a_view_has_its_fields_in_the_order_of_the_contract_and_writes_nulls() {
        let run_id = RunId::generate();
        let started_at = time::macros::datetime!(2026-01-02 03:04:05.678 UTC).into();
        let view = RunView {
            run_id: run_id.clone(),
            status: RunStatus::Running,
            steps: vec![StepView {
                step_id: crate::StepId::plan(),
                phase: Phase::Planning,
                output: json!({"b": 1, "a": 2}),
                started_at,
                finished_at: None,
            }],
            artifacts: vec![],
            trace_id: None,
        };
        assert_eq!(
            encode(&view).unwrap().to_string(),
            format!(
                r#"{{"runId":"{run_id}","status":"running","steps":[{{"stepId":"plan","phase":"planning","output":{{"b":1,"a":2}},"startedAt":"2026-01-02T03:04:05.678Z","finishedAt":null}}],"artifacts":[],"traceId":null}}"#
            )
        );
    }

    #[test]
    fn the_gate_out_refuses_what_the_schema_or_the_database_would() {
        let call = ToolCall::default();
        let plan = Plan {
            prompt: "a\0b".to_owned(),
            tool_calls: vec![call],
            responses: vec![],
            diffs: vec![],
        };
        assert_eq!(
            encode(&plan).unwrap_err().to_string(),
            "invalid Plan: data/toolCalls/0/name must NOT have fewer than 1 characters; \
             data/prompt must NOT contain the character U+0000"
        );
    }
}
