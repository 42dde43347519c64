//! Halves of surrogate pairs. A character outside of the Basic Multilingual Plane is two escapes in JSON, and a server that
//! cuts its stream into chunks by tokens may put each into a chunk of its own.

use kodo_contract::{JsonError, parse_json};
use serde_json::Value;

/// The private characters that stand for halves until they are joined: as many as there are halves.
const FIRST: u32 = 0x10_f800;
const FIRST_HALF: u32 = 0xd800;
const HALVES: u32 = 0x800;

/// Reads JSON. Where a string has half of a pair, a private character takes its place, and the second value is true: see
/// [`joined`].
pub(crate) fn parse(bytes: &[u8]) -> Result<(Value, bool), JsonError> {
    let error = match parse_json(bytes) {
        Ok(value) => return Ok((value, false)),
        Err(error @ JsonError::Malformed(_)) => error,
        Err(other) => return Err(other),
    };
    match std::str::from_utf8(bytes).ok().and_then(without_halves) {
        Some(text) => parse_json(text.as_bytes()).map(|value| (value, true)),
        None => Err(error),
    }
}

/// The JSON text with private characters for halves; `None` if it has none.
fn without_halves(text: &str) -> Option<String> {
    let mut changed = String::new();
    let mut from = 0;
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        match (half_at(text, at), half_at(text, at + 6)) {
            (Some(high), Some(low)) if is_high(high) && !is_high(low) => at += 12,
            (Some(half), _) => {
                changed.push_str(&text[from..at]);
                changed.extend(char::from_u32(FIRST + half - FIRST_HALF));
                at += 6;
                from = at;
            }
            // Whatever is escaped, it is no beginning of an escape.
            _ => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    changed.push_str(&text[from..]);
    (from > 0).then_some(changed)
}

/// The half that is escaped at a place, if there is one.
fn half_at(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    let unit = u32::from_str_radix(digits, 16).ok()?;
    (FIRST_HALF..FIRST_HALF + HALVES)
        .contains(&unit)
        .then_some(unit)
}

fn is_high(half: u32) -> bool {
    half < FIRST_HALF + HALVES / 2
}

/// The text with each two halves that follow each other as the character that they are. One that is alone becomes U+FFFD.
pub(crate) fn joined(text: &str) -> String {
    let half = |it: char| {
        let it = u32::from(it);
        (FIRST..FIRST + HALVES)
            .contains(&it)
            .then(|| it - FIRST + FIRST_HALF)
    };
    let mut characters = text.chars().peekable();
    let mut joined = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        let Some(first) = half(character) else {
            joined.push(character);
            continue;
        };
        let second = characters.peek().copied().and_then(half);
        let pair = match second {
            Some(second) if is_high(first) && !is_high(second) => {
                characters.next();
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
            }
            _ => None,
        };
        joined.push(pair.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The strings of these documents, one after the other.
    fn read(documents: &[&str]) -> String {
        let mut text = String::new();
        for document in documents {
            let (value, _) = parse(document.as_bytes()).unwrap();
            text.push_str(value.as_str().unwrap());
        }
        joined(&text)
    }

    #[test]
    fn halves_in_two_documents_are_one_character() {
        assert_eq!(read(&[r#""a\ud83d""#, r#""\uDE00b""#]), "a😀b");
        assert_eq!(read(&[r#""\ud83d\ude00\ud83d""#, r#""\ude00""#]), "😀😀");
        assert_eq!(read(&[r#""\\\\ud83d""#, r#""\\ude00""#]), r"\\ud83d\ude00");
    }

    #[test]
    fn a_half_that_stays_alone_is_replaced() {
        assert_eq!(read(&[r#""a\ud83db""#]), "a\u{fffd}b");
        assert_eq!(read(&[r#""\ude00\ud83d""#]), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_document_without_halves_is_read_as_it_is() {
        let (value, halves) = parse("\"\u{10f83d}\"".as_bytes()).unwrap();
        assert_eq!((value.as_str(), halves), (Some("\u{10f83d}"), false));
        for wrong in [r#""\ud83d"#, "{", r#"{"a":"\ude00",}"#] {
            assert!(parse(wrong.as_bytes()).is_err());
        }
    }
}
