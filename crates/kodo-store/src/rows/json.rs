//! JSON as columns keep it: parsed without losing a digit, and hashed by its canonical form.

use kodo_contract::{canonical_json, parse_stored_json, sha256_hex};
use serde_json::Value;

use crate::StoreError;

/// Parses the text of a JSON column.
pub(crate) fn stored_json(text: &str) -> Result<Value, StoreError> {
    parse_stored_json(text.as_bytes()).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// The sha256 of the canonical JSON (RFC 8785) of a value, in hexadecimal. It does not depend on the order in which
/// Postgres keeps the keys of an object.
pub(crate) fn content_hash(value: &Value) -> String {
    sha256_hex(canonical_json(value).as_bytes())
}
