//! The `Idempotency-Key` header: the first answer is stored with the rows, and given again to the same request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use kodo_contract::{canonical_json, sha256_hex};
use kodo_store::{Idempotency, Write};
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::{self, Subject};
use crate::route::{Describe, Input, Route};

/// The longest key, in characters.
const MAX_KEY_CHARS: usize = 255;

/// The key that a client sent, without quotes. The IETF draft makes the header a quoted string; most clients send it
/// without quotes, and both mean the same key.
fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut sent = headers.get_all("idempotency-key").iter();
    let Some(value) = sent.next() else {
        return Ok(None);
    };
    if sent.next().is_some() {
        return Err(ApiError::BadIdempotencyKey);
    }
    let bytes = value.as_bytes();
    let bytes = bytes
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(bytes);
    let fits = (1..=MAX_KEY_CHARS).contains(&bytes.len());
    if !fits || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(ApiError::BadIdempotencyKey);
    }
    std::str::from_utf8(bytes)
        .map(Some)
        .map_err(|_| ApiError::BadIdempotencyKey)
}

/// The idempotency key of a request, if it carries one.
pub(crate) struct IdempotencyKey(Option<String>);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        Ok(Self(key(&parts.headers)?.map(str::to_owned)))
    }
}

impl Describe for IdempotencyKey {
    fn describe(route: &mut Route) {
        route.inputs.push(Input::IdempotencyKey);
        route.refuses([ApiError::BadIdempotencyKey, ApiError::IdempotencyKeyReused]);
    }
}

impl IdempotencyKey {
    /// Prepares the answer to a write, which a key stores in the commit of the rows.
    ///
    /// `scope` is the route as `METHOD /path/:parameter`; it is in the database, so it stays. `request` is all that
    /// makes the request what it is, parameters of the path included: its hash is the key's fingerprint.
    pub(crate) fn prepare(
        self,
        scope: &'static str,
        request: &impl Serialize,
        status: StatusCode,
        body: &impl Serialize,
    ) -> Result<Prepared, ApiError> {
        let fingerprint = match self.0 {
            Some(_) => fingerprint(request)?,
            None => String::new(),
        };
        Ok(Prepared {
            scope,
            key: self.0,
            fingerprint,
            status,
            body: serde_json::to_string(body)?,
        })
    }
}

/// The answer to a write that may carry an idempotency key.
pub(crate) struct Prepared {
    scope: &'static str,
    key: Option<String>,
    fingerprint: String,
    status: StatusCode,
    body: String,
}

impl Prepared {
    /// What to store with the rows; `None` if the request has no key.
    pub(crate) fn stored(&self) -> Option<Idempotency<'_>> {
        self.key.as_deref().map(|key| Idempotency {
            scope: self.scope,
            key,
            fingerprint: &self.fingerprint,
            status: self.status.as_u16(),
            body: &self.body,
        })
    }

    /// The prepared answer if rows were written, the stored one if the same request came before.
    pub(crate) fn answer(
        self,
        write: Write,
        subject: impl Into<Subject>,
    ) -> Result<Response, ApiError> {
        match write {
            Write::Created => Ok(answer::json_about(self.status, self.body, subject)),
            Write::Replayed { status, body } => {
                let status = StatusCode::from_u16(status).map_err(|_| {
                    ApiError::Internal(format!("stored answer with status {status}"))
                })?;
                let mut response = answer::json(status, body);
                response
                    .headers_mut()
                    .insert("idempotency-replayed", HeaderValue::from_static("true"));
                Ok(response)
            }
            Write::KeyReused => Err(ApiError::IdempotencyKeyReused),
        }
    }
}

/// The hash of a request: two spellings of one request have one fingerprint, except of its numbers, which are stored as
/// they were sent.
pub(crate) fn fingerprint(request: &impl Serialize) -> Result<String, ApiError> {
    let mut value = serde_json::to_value(request)?;
    keep_numbers(&mut value);
    Ok(sha256_hex(canonical_json(&value).as_bytes()))
}

/// Puts a text in the place of each number that is not spelled canonically: one with a character that no request can have.
fn keep_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let sent = number.to_string();
            if canonical_json(value) != sent {
                *value = Value::String(format!("\0{sent}"));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(keep_numbers),
        Value::Object(members) => members.values_mut().for_each(keep_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use kodo_contract::{Intent, decode, parse_json};

    use super::*;
    use crate::testing::read;

    fn key_of(values: &[&[u8]]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
        }
        key(&headers)
            .map(|key| key.map(str::to_owned))
            .map_err(|_| ())
    }

    #[test]
    fn a_key_is_the_same_with_or_without_quotes() {
        assert_eq!(key_of(&[]), Ok(None));
        assert_eq!(key_of(&[b"k-1"]), Ok(Some("k-1".into())));
        assert_eq!(key_of(&[b"\"k-1\""]), Ok(Some("k-1".into())));
        assert_eq!(
            key_of(&[b"\""]),
            Ok(Some("\"".into())),
            "one quote is a character"
        );
        assert_eq!(key_of(&[&[b'k'; 255]]), Ok(Some("k".repeat(255))));
        let quoted = format!("\"{}\"", "k".repeat(255));
        assert_eq!(key_of(&[quoted.as_bytes()]), Ok(Some("k".repeat(255))));
    }

    #[test]
    fn a_key_that_is_empty_long_repeated_or_not_visible_ascii_is_refused() {
        for wrong in [
            &b""[..],
            b"\"\"",
            &[b'k'; 256],
            b"a b",
            b"a\tb",
            "é".as_bytes(),
            b"\xff",
        ] {
            assert_eq!(key_of(&[wrong]), Err(()), "{wrong:?}");
        }
        assert_eq!(key_of(&[b"a", b"a"]), Err(()));
    }

    #[test]
    fn requests_that_differ_in_a_digit_that_is_stored_are_two_and_those_that_differ_in_order_are_one()
     {
        let of = |text: &str| {
            let value: Value = serde_json::from_str(text).unwrap();
            fingerprint(&value).unwrap()
        };
        assert_eq!(of(r#"{"a":1,"b":[2.5]}"#), of(r#"{ "b": [2.5], "a": 1 }"#));
        let spellings = ["1.1", "1.10", "11e-1", "1.1E0", "\"1.1\"", "\"1.10\""];
        let hashes: std::collections::BTreeSet<String> = spellings
            .iter()
            .map(|number| of(&format!(r#"{{"a":[{number}]}}"#)))
            .collect();
        assert_eq!(hashes.len(), spellings.len());
    }

    fn prepared() -> Prepared {
        let key = IdempotencyKey(Some("k".into()));
        key.prepare("POST /x", &1, StatusCode::CREATED, &"new")
            .unwrap()
    }

    #[test]
    fn what_is_stored_is_what_is_answered_and_nothing_without_a_key() {
        let prepared = prepared();
        let stored = prepared.stored().unwrap();
        assert_eq!(
            (stored.scope, stored.key, stored.status, stored.body),
            ("POST /x", "k", 201, "\"new\"")
        );
        assert_eq!(stored.fingerprint, fingerprint(&1).unwrap());
        let keyless = IdempotencyKey(None).prepare("POST /x", &1, StatusCode::CREATED, &"new");
        assert!(keyless.unwrap().stored().is_none());
    }

    #[tokio::test]
    async fn a_replay_is_the_stored_answer_and_says_so() {
        let write = Write::Replayed {
            status: 202,
            body: "{}".into(),
        };
        let response = prepared().answer(write, Subject::default()).unwrap();
        assert_eq!(response.headers()["idempotency-replayed"], "true");
        assert_eq!(read(response).await, (202, "{}".to_owned()));

        let created = prepared().answer(Write::Created, Subject::default());
        let created = created.unwrap();
        assert!(!created.headers().contains_key("idempotency-replayed"));
        assert_eq!(read(created).await, (201, "\"new\"".to_owned()));
    }

    #[tokio::test]
    async fn a_key_of_another_request_is_a_422() {
        let error = prepared().answer(Write::KeyReused, Subject::default());
        let (status, body) = read(error.unwrap_err().into_response()).await;
        assert_eq!(status, 422);
        assert_eq!(
            body,
            r#"{"error":"idempotency key reused with a different request"}"#
        );
    }

    fn intent_fingerprint(json: &str) -> String {
        let intent: Intent = decode(&parse_json(json.as_bytes()).unwrap()).unwrap();
        fingerprint(&intent).unwrap()
    }

    #[test]
    fn spelling_does_not_change_a_request_and_content_does() {
        let one = intent_fingerprint(r#"{"goal":"g","inputs":{"a":1,"b":2},"constraints":{}}"#);
        let same = intent_fingerprint(
            r#" {"connectors":null, "constraints":{}, "inputs":{"b":2,"a":1}, "goal":"\u0067"}"#,
        );
        assert_eq!(one, same);
        let other = intent_fingerprint(r#"{"goal":"g","inputs":{"a":1,"b":3},"constraints":{}}"#);
        assert_ne!(one, other);
    }
}
