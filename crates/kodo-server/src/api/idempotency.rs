//! The `Idempotency-Key` header, and what makes two requests the same.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use kodo_contract::{canonical_json, sha256_hex};
use kodo_store::Write;
use serde::Serialize;

use crate::error::ApiError;
use crate::http::answer::{self, Subject};

/// The longest key, in characters.
const MAX_KEY_CHARS: usize = 255;

/// The key that a client sent, without its quotes. The IETF draft makes the header a quoted string; most clients send
/// it bare, and both mean the same key.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
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

/// The hash of all that makes a request what it is: two spellings of one request have one fingerprint.
pub(crate) fn fingerprint(request: &impl Serialize) -> Result<String, ApiError> {
    let value = serde_json::to_value(request)?;
    Ok(sha256_hex(canonical_json(&value).as_bytes()))
}

/// The answer to a write that may carry a key: the one that was prepared if rows were written, the stored one if the
/// same request came before.
pub(crate) fn answer(
    write: Write,
    status: StatusCode,
    prepared: String,
    subject: Subject,
) -> Result<Response, ApiError> {
    match write {
        Write::Created => Ok(answer::json_about(status, prepared, subject)),
        Write::Replayed { status, body } => {
            let status = StatusCode::from_u16(status)
                .map_err(|_| ApiError::Internal(format!("stored answer with status {status}")))?;
            let mut response = answer::json(status, body);
            response
                .headers_mut()
                .insert("idempotency-replayed", HeaderValue::from_static("true"));
            Ok(response)
        }
        Write::KeyReused => Err(ApiError::IdempotencyKeyReused),
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

    #[tokio::test]
    async fn a_replay_is_the_stored_answer_and_says_so() {
        let write = Write::Replayed {
            status: 202,
            body: "{}".into(),
        };
        let response =
            answer(write, StatusCode::CREATED, "new".into(), Subject::default()).unwrap();
        assert_eq!(response.headers()["idempotency-replayed"], "true");
        assert_eq!(read(response).await, (202, "{}".to_owned()));

        let created = answer(
            Write::Created,
            StatusCode::CREATED,
            "new".into(),
            Subject::default(),
        );
        let created = created.unwrap();
        assert!(!created.headers().contains_key("idempotency-replayed"));
        assert_eq!(read(created).await, (201, "new".to_owned()));
    }

    #[tokio::test]
    async fn a_key_of_another_request_is_a_422() {
        let error = answer(
            Write::KeyReused,
            StatusCode::CREATED,
            String::new(),
            Subject::default(),
        );
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
