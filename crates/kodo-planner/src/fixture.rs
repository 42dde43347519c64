//! Fixtures: recorded answers to intents, and the keys by which they are found.
//!
//! A fixture is a file `<key>.json`, or `default.json` with the key `default`:
//!
//! ```json
//! { "key": "<64 hex digits, or default>", "schemaVersion": 1, "request": {}, "recorded": {}, "response": { "prompt": "…" } }
//! ```
//!
//! `response` is a plan; a recorded failure has `failure: {code, message}` instead, and replays as that failure.
//! `request` is what the key was made of. It is optional, for people and for recording again; if it is given, it must
//! belong to the key. `recorded` says who answered.
//!
//! # The key
//!
//! The key identifies the question: intent, seed and the version of the plan's schema. It does not depend on who answered:
//! replay must find the fixture without knowing the model, prompt or provider, and a recording of another model replaces
//! the old one, so that `git diff` shows what changed. For recordings of two models, use two folders
//! (`OC_FIXTURES_DIR`).

use std::path::Path;

use kodo_contract::{
    Intent, Invalid, Plan, canonical_json, decode, encode, parse_json, read_json, sha256_hex,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Failure, PlanError};

/// The version of the plan's schema. It is part of every key, because another schema needs other recordings.
pub const SCHEMA_VERSION: u64 = 1;

/// The key of the default fixture.
pub const DEFAULT_KEY: &str = "default";

/// The key of the fixture for this intent and seed: the SHA-256 of their canonical JSON, in hexadecimal digits.
#[must_use]
pub fn fixture_key(intent: &Intent, seed: u64) -> String {
    key_of(&request_of(intent, seed))
}

/// The document whose hash is the key.
fn request_of(intent: &Intent, seed: u64) -> Value {
    json!({"intent": intent, "schemaVersion": SCHEMA_VERSION, "seed": seed})
}

fn key_of(request: &Value) -> String {
    sha256_hex(canonical_json(request).as_bytes())
}

/// A recorded answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Fixture {
    /// Its key: 64 hexadecimal digits, or [`DEFAULT_KEY`].
    pub key: String,
    /// The question, if the fixture says it: an object with `intent` and `seed`.
    pub request: Option<Value>,
    /// Who answered, if the fixture says it.
    pub recorded: Option<Recorded>,
    /// The answer.
    pub answer: Result<Plan, Failure>,
}

/// Who gave a recorded answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recorded {
    /// The kind of provider.
    pub provider: String,
    /// The model's name there.
    pub model: String,
    /// The version of the prompt ([`PROMPT_VERSION`](crate::PROMPT_VERSION)).
    pub prompt_version: u32,
}

/// The format of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    key: String,
    schema_version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recorded: Option<Recorded>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl Fixture {
    /// Makes the fixture of an answer to this intent and seed.
    #[must_use]
    pub fn new(
        intent: &Intent,
        seed: u64,
        recorded: Recorded,
        answer: Result<Plan, Failure>,
    ) -> Self {
        Self {
            key: fixture_key(intent, seed),
            request: Some(request_of(intent, seed)),
            recorded: Some(recorded),
            answer,
        }
    }

    /// Reads the fixture with this key from `bytes`. `path` is for the error.
    ///
    /// # Errors
    ///
    /// [`PlanError::FixtureInvalid`] if it is anything else than the fixture with this key.
    pub fn read(bytes: &[u8], key: &str, path: &Path) -> Result<Self, PlanError> {
        parse(bytes, key).map_err(|reason| PlanError::FixtureInvalid {
            path: path.to_owned(),
            reason,
        })
    }

    /// The intent and the seed that it answers, if it says them.
    ///
    /// # Errors
    ///
    /// The recorded intent is not valid.
    pub fn question(&self) -> Result<Option<(Intent, u64)>, Invalid> {
        let Some(request) = &self.request else {
            return Ok(None);
        };
        let Some(seed) = request["seed"].as_u64() else {
            return Ok(None);
        };
        Ok(Some((decode(&request["intent"])?, seed)))
    }

    /// The answer as JSON: the plan, or `{"failure": …}`.
    ///
    /// # Errors
    ///
    /// The plan is not valid.
    pub fn answer_json(&self) -> Result<Value, Invalid> {
        match &self.answer {
            Ok(plan) => encode(plan),
            Err(failure) => Ok(json!({"failure": failure})),
        }
    }

    /// The content of its file.
    ///
    /// # Errors
    ///
    /// The plan is not valid.
    pub fn to_text(&self) -> Result<String, Invalid> {
        let file = File {
            key: self.key.clone(),
            schema_version: SCHEMA_VERSION,
            request: self.request.clone(),
            recorded: self.recorded.clone(),
            response: self.answer.as_ref().ok().map(encode).transpose()?,
            failure: self.answer.as_ref().err().cloned(),
        };
        // Serializing these types cannot fail: all their keys are strings.
        Ok(serde_json::to_string_pretty(&file).unwrap_or_default() + "\n")
    }
}

fn parse(bytes: &[u8], key: &str) -> Result<Fixture, String> {
    let value = parse_json(bytes).map_err(|error| error.to_string())?;
    let file: File = read_json(&value).map_err(|error| error.to_string())?;
    if file.key != key {
        return Err(format!("its key is {:?}, not {key:?}", file.key));
    }
    if file.schema_version != SCHEMA_VERSION {
        let found = file.schema_version;
        return Err(format!(
            "its schemaVersion is {found}, not {SCHEMA_VERSION}"
        ));
    }
    if let Some(request) = file.request.as_ref().filter(|_| key != DEFAULT_KEY) {
        let made_of = key_of(request);
        if made_of != key {
            return Err(format!("its request belongs to the key {made_of}"));
        }
    }
    let answer = match (file.response, file.failure) {
        (Some(response), None) => Ok(decode(&response).map_err(|invalid| invalid.to_string())?),
        (None, Some(failure)) => Err(failure),
        (None, None) => return Err("it has neither response nor failure".to_owned()),
        (Some(_), Some(_)) => return Err("it has both response and failure".to_owned()),
    };
    Ok(Fixture {
        key: file.key,
        request: file.request,
        recorded: file.recorded,
        answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(text: &str) -> Intent {
        decode(&parse_json(text.as_bytes()).unwrap()).unwrap()
    }

    fn fixture(change: impl FnOnce(&mut Value)) -> Result<Plan, String> {
        whole(change)?.answer.map_err(|failure| failure.message)
    }

    fn whole(change: impl FnOnce(&mut Value)) -> Result<Fixture, String> {
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
    fn a_fixture_keeps_every_digit_of_what_was_asked_and_answered() {
        let asked = intent(r#"{"goal":"g","inputs":{"n":1000000000000000.3},"constraints":{}}"#);
        let request = request_of(&asked, 1);
        let key = key_of(&request);
        let tie = parse_json(b"1000000000000000.3").unwrap();
        let written = json!({
            "key": key, "schemaVersion": 1, "request": request,
            "response": {"prompt": "p", "toolCalls": [], "responses": [tie], "diffs": []}
        });
        let read = parse(written.to_string().as_bytes(), &key).unwrap();
        assert_eq!(read.request.unwrap(), request);
        assert_eq!(read.answer.unwrap().responses, [tie]);
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
            refused(|it| it["failure"] = json!({"code": "planner_declined", "message": "m"}))
                .contains("both")
        );
        assert!(
            refused(|it| *it = json!({"key": "default", "schemaVersion": 1})).contains("neither")
        );
        assert!(
            parse(b"{", "default")
                .unwrap_err()
                .contains("malformed JSON")
        );
        assert!(parse(b"[]", "default").is_err());
    }

    #[test]
    fn a_fixture_is_read_as_it_was_written() {
        let recorded = Recorded {
            provider: "openai".into(),
            model: "m".into(),
            prompt_version: 1,
        };
        let intent = intent(r#"{"goal":"g","inputs":{"n":12345678901234567890},"constraints":{}}"#);
        let plan = fixture(|_| {}).unwrap();
        let failure = Failure {
            code: kodo_contract::ErrorCode::PlanRefused,
            message: "no".into(),
            passes_after: None,
        };
        for answer in [Ok(plan), Err(failure)] {
            let written = Fixture::new(&intent, 7, recorded.clone(), answer);
            let text = written.to_text().unwrap();
            let read = parse(text.as_bytes(), &fixture_key(&intent, 7)).unwrap();
            assert_eq!(read, written);
            assert_eq!(read.question().unwrap().unwrap(), (intent.clone(), 7));
            assert_eq!(read.to_text().unwrap(), text);
        }
    }

    #[test]
    fn a_failure_with_a_code_that_is_none_of_a_model_is_no_fixture() {
        for code in ["planner_bored", "tool_failed", "planner_fixture_missing"] {
            let refused = whole(|it| {
                it.as_object_mut().unwrap().remove("response");
                it["failure"] = json!({"code": code, "message": "m"});
            });
            assert!(refused.unwrap_err().contains(code));
        }
    }
}
