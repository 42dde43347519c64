//! Reading JSON text: strictly, exactly, and never deeper than the stack allows.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Deserializer, Value};
use thiserror::Error;

use crate::storable::is_reserved_key;

/// How many containers may stand within each other in JSON from outside.
pub const MAX_DEPTH: usize = 128;

/// The same for JSON from our own database, where what came from outside sits a few levels deeper.
pub const MAX_STORED_DEPTH: usize = 160;

/// Why a text is not taken as JSON.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8: {0}")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// Containers stand within each other more than this many times.
    #[error("nested deeper than {limit}")]
    TooDeep {
        /// The limit that was crossed.
        limit: usize,
    },
    /// An object key that `serde_json` itself gives a meaning, and would quietly replace the object
    /// because of it.
    #[error("the key {key:?} is reserved")]
    ReservedKey {
        /// The key.
        key: String,
    },
    /// Anything else: syntax, a second document, a BOM, a lone surrogate.
    #[error("malformed JSON: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Reads one JSON document from outside: UTF-8, no BOM, nothing after it, at most [`MAX_DEPTH`]
/// containers deep.
///
/// Numbers keep their digits, objects their key order; of two equal keys the last one counts.
///
/// # Errors
///
/// [`JsonError`]; clients only learn that the body is no JSON.
pub fn parse_json(bytes: &[u8]) -> Result<Value, JsonError> {
    parse(bytes, MAX_DEPTH)
}

/// Reads JSON that we stored ourselves: as [`parse_json`], up to [`MAX_STORED_DEPTH`] containers
/// deep.
///
/// # Errors
///
/// [`JsonError`]; here it means that another program wrote to our tables.
pub fn parse_stored_json(bytes: impl AsRef<[u8]>) -> Result<Value, JsonError> {
    parse(bytes.as_ref(), MAX_STORED_DEPTH)
}

fn parse(bytes: &[u8], limit: usize) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes)?;
    scan(text, limit)?;
    let mut deserializer = Deserializer::from_str(text);
    // Its own limit is one short of ours. The scan has bounded the depth, so recursion is bounded
    // without it.
    deserializer.disable_recursion_limit();
    let value = Value::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The first key that an object in this JSON has more than once, quoted; `None` if there is none, or the text is no JSON.
/// [`parse_json`] takes the last of its values, which is not what every program takes.
#[must_use]
pub fn repeated_key(bytes: &[u8]) -> Option<String> {
    // Bounds the depth.
    let text = std::str::from_utf8(bytes).ok()?;
    scan(text, MAX_DEPTH).ok()?;
    let mut found = None;
    let mut deserializer = Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let _ = Repeated(&mut found).deserialize(&mut deserializer);
    found
}

/// Looks for a key that is repeated, and stops at the first one.
struct Repeated<'a>(&'a mut Option<String>);

impl<'de> DeserializeSeed<'de> for Repeated<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Repeated<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            // A number, in the way in which it keeps its digits.
            if is_reserved_key(&key) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if keys.contains(&key) {
                *self.0 = Some(format!("{key:?}"));
                return Err(A::Error::custom("a key is repeated"));
            }
            keys.insert(key);
            map.next_value_seed(Repeated(&mut *self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Repeated(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a type out of JSON that is already parsed, with every digit of its numbers.
///
/// By way of the text, since the straight way is not exact: `serde_json` hands a number over as a
/// float where `f64`'s `Display` spells that float as the number was spelled, and then writes the
/// float anew in another spelling (`1000000000000000.3` becomes `1000000000000000.2`, which is the
/// same float and another number).
///
/// # Errors
///
/// If the JSON does not have the shape of the type.
pub fn read_json<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    let text = value.to_string();
    let mut deserializer = Deserializer::from_str(&text);
    // What is parsed was bounded when it was parsed.
    deserializer.disable_recursion_limit();
    T::deserialize(&mut deserializer)
}

/// Checks what must be known before the parser runs: depth and reserved keys.
///
/// It need not understand malformed text. Up to the first mistake it sees the same strings and
/// containers as the parser, and at the first mistake the parser stops.
fn scan(text: &str, limit: usize) -> Result<(), JsonError> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Err(JsonError::TooDeep { limit });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                let start = at - 1;
                at = end_of_string(bytes, at);
                if is_key(bytes, at) {
                    check_key(&text[start..at])?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The index after the closing quote of the string whose content begins at `at`, or the end of the
/// text.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn is_key(bytes: &[u8], at: usize) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
    next == Some(&b':')
}

fn check_key(quoted: &str) -> Result<(), JsonError> {
    // Only a key that is spelled with escapes needs decoding to be compared.
    if !quoted.contains('\\') && !is_reserved_key(quoted.trim_matches('"')) {
        return Ok(());
    }
    // A string that does not decode is the parser's to report.
    match serde_json::from_str::<String>(quoted) {
        Ok(key) if is_reserved_key(&key) => Err(JsonError::ReservedKey { key }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> String {
        "[".repeat(depth - 1) + "{}" + &"]".repeat(depth - 1)
    }

    #[test]
    fn a_plain_document_is_read_with_its_numbers_and_its_key_order() {
        let text = r#" {"b":12345678901234567890,"a":[1.10,-0.0,1E400],"é":"\ud83d\ude00"} "#;
        let value = parse_json(text.as_bytes()).unwrap();
        assert_eq!(value["b"].to_string(), "12345678901234567890");
        assert_eq!(value["a"][0].to_string(), "1.10");
        assert_eq!(value["a"][1].to_string(), "-0.0");
        assert_eq!(value["é"], json!("😀"));
        let keys: Vec<_> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["b", "a", "é"]);
    }

    #[test]
    fn a_key_that_an_object_has_twice_is_found_also_where_it_is_spelled_otherwise() {
        for (text, key) in [
            (r#"{"a":1,"a":1}"#, Some("\"a\"")),
            (r#"{"a":1,"\u0061":1}"#, Some("\"a\"")),
            (
                r#"[1.5,12345678901234567890,null,"x",{"a":{"b":[{"c":1,"c":2}]}}]"#,
                Some("\"c\""),
            ),
            (r#"{"a":{"a":1},"b":{"a":1}}"#, None),
            (r#"{"a":1,"A":1}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(repeated_key(text.as_bytes()).as_deref(), key, "{text}");
        }
    }

    #[test]
    fn nesting_of_128_is_taken_and_of_129_is_not() {
        assert!(parse_json(nested(128).as_bytes()).is_ok());
        let error = parse_json(nested(129).as_bytes()).unwrap_err();
        assert!(matches!(error, JsonError::TooDeep { limit: 128 }));
        let objects = r#"{"a":"#.repeat(128) + "1" + &"}".repeat(128);
        assert!(parse_json(objects.as_bytes()).is_ok());
        assert!(parse_json(format!("[{objects}]").as_bytes()).is_err());
    }

    #[test]
    fn our_own_rows_may_nest_a_little_deeper() {
        assert!(parse_stored_json(nested(160)).is_ok());
        assert!(parse_stored_json(nested(161)).is_err());
    }

    #[test]
    fn a_megabyte_of_opening_brackets_does_not_exhaust_the_stack() {
        assert!(parse_json(&vec![b'['; 1 << 20]).is_err());
        assert!(parse_json("[]".repeat(1 << 19).as_bytes()).is_err());
    }

    #[test]
    fn brackets_in_strings_are_no_nesting() {
        let text = format!(r#"["{}\"{}", "\\"]"#, "[".repeat(200), "{".repeat(200));
        assert!(parse_json(text.as_bytes()).is_ok());
    }

    #[test]
    fn width_is_no_depth() {
        let text = format!("[{}[]]", "[{}],".repeat(10_000));
        assert!(parse_json(text.as_bytes()).is_ok());
    }

    #[test]
    fn a_lone_surrogate_is_malformed_json() {
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800x""#,
            r#""\ud800\ud800""#,
            r#""\udc00\ud800""#,
            r#"{"\ud83d":1}"#,
            r#"{"a":["\uDEAD"]}"#,
        ] {
            let error = parse_json(text.as_bytes()).unwrap_err();
            assert!(matches!(error, JsonError::Malformed(_)), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_json_document_is_refused() {
        let texts: [&[u8]; 22] = [
            b"",
            b"  ",
            b"{",
            b"{}{}",
            b"{} x",
            b"1 2",
            b"\xef\xbb\xbf{}",
            b"\xff",
            b"\"\xc3\"",
            b"\"\xed\xa0\x80\"",
            b"\xfe\xff\0{\0}",
            b"NaN",
            b"[Infinity]",
            b"{\"a\":1,}",
            b"[1,]",
            b"{a:1}",
            b"{'a':1}",
            b"01",
            b"+1",
            b"1.",
            b"\"\x01\"",
            b"\"\\",
        ];
        for text in texts {
            assert!(
                parse_json(text).is_err(),
                "{:?}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn an_object_that_serde_json_would_mistake_for_its_own_is_refused() {
        for text in [
            r#"{"a":{"$serde_json::private::Number":"1"}}"#,
            r#"{"$serde_json::private::RawValue" : "[1]"}"#,
            r#"{"\u0024serde_json::private::Number":"1"}"#,
            r#"{"a":1,"$serde_json::private::Number":"1"}"#,
        ] {
            let error = parse_json(text.as_bytes()).unwrap_err();
            assert!(
                matches!(error, JsonError::ReservedKey { .. }),
                "{text}: {error}"
            );
        }
        assert!(parse_json(br#"{"a":"$serde_json::private::Number"}"#).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_json_reads_it(text in r#"[\[\]{}",:\\0-9eE.u \-tfnulrase]{0,40}"#) {
            let ours = parse_json(text.as_bytes()).ok();
            prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
        }
    }
}
