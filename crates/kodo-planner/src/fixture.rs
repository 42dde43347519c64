//! Fixtures: recorded plans, and the keys that they are found by.
//!
//! A fixture is a file `<key>.json`, or `default.json` with the key `default`:
//!
//! ```json
//! { "key": "<64 hex digits, or default>", "schemaVersion": 1, "request": {}, "response": { "prompt": "…" } }
//! ```
//!
//! `response` is a plan. `request` is what the key was made of; it may be left out and is there for
//! people, but where it is given with a key, the two must belong together.

use std::path::Path;

use kodo_contract::{Intent, Plan, canonical_json, decode, parse_json, sha256_hex};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::PlanError;

/// The version of the plan's schema, part of every key: another schema needs other recordings.
pub const SCHEMA_VERSION: u64 = 1;

/// The key of the default fixture.
pub(crate) const DEFAULT_KEY: &str = "default";

/// The key by which the fixture for this intent and seed is found: the SHA-256 of their canonical
/// JSON.
#[must_use]
pub fn fixture_key(intent: &Intent, seed: u64) -> String {
    key_of(&json!({"intent": intent, "schemaVersion": SCHEMA_VERSION, "seed": seed}))
}

fn key_of(request: &Value) -> String {
    sha256_hex(canonical_json(request).as_bytes())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fixture {
    key: String,
    schema_version: u64,
    #[serde(default)]
    request: Option<Value>,
    response: Value,
}

/// Reads the fixture with this key; `path` is for the error.
pub(crate) fn read(bytes: &[u8], key: &str, path: &Path) -> Result<Plan, PlanError> {
    parse(bytes, key).map_err(|reason| PlanError::FixtureInvalid {
        path: path.to_owned(),
        reason,
    })
}

fn parse(bytes: &[u8], key: &str) -> Result<Plan, String> {
    let value = parse_json(bytes).map_err(|error| error.to_string())?;
    let fixture = Fixture::deserialize(&value).map_err(|error| error.to_string())?;
    if fixture.key != key {
        return Err(format!("its key is {:?}, not {key:?}", fixture.key));
    }
    if fixture.schema_version != SCHEMA_VERSION {
        let found = fixture.schema_version;
        return Err(format!(
            "its schemaVersion is {found}, not {SCHEMA_VERSION}"
        ));
    }
    if let Some(request) = fixture.request.filter(|_| key != DEFAULT_KEY) {
        let made_of = key_of(&request);
        if made_of != key {
            return Err(format!("its request belongs to the key {made_of}"));
        }
    }
    decode(&fixture.response).map_err(|invalid| invalid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(text: &str) -> Intent {
        decode(&parse_json(text.as_bytes()).unwrap()).unwrap()
    }

    fn fixture(change: impl FnOnce(&mut Value)) -> Result<Plan, String> {
        let mut fixture = json!({
            "key": "default", "schemaVersion": 1,
            "response": {"prompt": "p", "toolCalls": [], "responses": [], "diffs": []}
        });
        change(&mut fixture);
        parse(fixture.to_string().as_bytes(), "default")
    }

    #[test]
    fn the_key_follows_the_meaning_and_not_the_spelling() {
        let one = intent(r#"{"goal":"g","inputs":{"a":1.10,"b":2},"constraints":{}}"#);
        let same = intent(
            r#"{"constraints":{},"connectors":null,"inputs":{"b":2e0,"a":11e-1},"goal":"\u0067"}"#,
        );
        assert_eq!(fixture_key(&one, 7), fixture_key(&same, 7));
    }

    #[test]
    fn whatever_means_something_else_has_another_key() {
        let texts = [
            r#"{"goal":"g","inputs":{"n":12345678901234567890},"constraints":{}}"#,
            r#"{"goal":"g","inputs":{"n":12345678901234567891},"constraints":{}}"#,
            r#"{"goal":"g","inputs":{},"constraints":{"n":12345678901234567890}}"#,
            r#"{"goal":"G","inputs":{"n":12345678901234567890},"constraints":{}}"#,
            r#"{"goal":"g","inputs":{"n":12345678901234567890},"constraints":{},"connectors":[]}"#,
        ];
        let mut keys: Vec<_> = texts.map(|text| fixture_key(&intent(text), 1)).into();
        keys.push(fixture_key(&intent(texts[0]), 2));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn a_sound_fixture_is_read() {
        assert_eq!(fixture(|_| {}).unwrap().prompt, "p");
        assert!(fixture(|it| it["request"] = json!({"for": "people"})).is_ok());
    }

    #[test]
    fn a_fixture_that_is_not_exactly_one_is_refused_with_the_reason() {
        let refused = |change: fn(&mut Value)| fixture(change).unwrap_err();
        assert!(refused(|it| it["extra"] = json!(1)).contains("unknown field `extra`"));
        assert!(refused(|it| it["key"] = json!("other")).contains("its key is \"other\""));
        assert!(refused(|it| it["schemaVersion"] = json!(2)).contains("schemaVersion is 2"));
        assert_eq!(
            refused(|it| it["response"]["toolCalls"] = json!([{"name": "t"}])),
            "invalid Plan: data/toolCalls/0 must have required property 'args'"
        );
        assert!(
            parse(b"{", "default")
                .unwrap_err()
                .contains("malformed JSON")
        );
        assert!(parse(b"[]", "default").is_err());
    }
}
