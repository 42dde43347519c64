//! How long a value is as JSON text, without writing it.

use serde_json::Value;

use crate::decimal::Decimal;

/// The length in bytes of a value as compact JSON, once the database has held it: `jsonb` writes numbers out without an
/// exponent.
#[must_use]
pub fn json_size(value: &Value) -> u64 {
    let all = |items: u64, count: usize| items + 2 + (count as u64).saturating_sub(1);
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => {
            let decimal = Decimal::of(number);
            match decimal.plain_digits() {
                Some((before, after)) => {
                    u64::from(decimal.is_negative()) + before + u64::from(after > 0) + after
                }
                None => number.as_str().len() as u64,
            }
        }
        Value::String(text) => text_size(text),
        Value::Array(items) => all(items.iter().map(json_size).sum(), items.len()),
        Value::Object(members) => {
            let sizes = members
                .iter()
                .map(|(key, member)| text_size(key) + 1 + json_size(member));
            all(sizes.sum(), members.len())
        }
    }
}

fn text_size(text: &str) -> u64 {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use crate::parse_json;

    use super::*;

    #[test]
    fn it_is_the_length_of_what_is_written() {
        for text in [
            "null",
            "true",
            "false",
            "[]",
            "{}",
            "-12.50",
            "0.001",
            r#"{"a":[1,2,{"b":""}],"c\"\\\n\u0001\b":"\t\f\r\u001fü€😀\u007f/"}"#,
        ] {
            let value = parse_json(text.as_bytes()).unwrap();
            assert_eq!(json_size(&value), value.to_string().len() as u64, "{text}");
        }
    }

    #[test]
    fn a_number_is_as_long_as_the_database_writes_it() {
        for (text, written) in [
            ("1e3", "1000"),
            ("-1.5e-3", "-0.0015"),
            ("1.50e1", "15.0"),
            ("0e5", "0"),
            ("1E+2", "100"),
        ] {
            let value = parse_json(text.as_bytes()).unwrap();
            assert_eq!(json_size(&value), written.len() as u64, "{text}");
        }
    }
}
