//! One text per JSON value: what hashes are taken of.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::decimal::Decimal;

/// Writes a value as RFC 8785 (JCS) has it, with one extension for numbers.
///
/// RFC 8785 rounds every number to an IEEE double. Here a number that a double's shortest spelling
/// does not name exactly keeps its exact value, in the same notation and in one normal form:
/// `12345678901234567890` and `12345678901234567891` stay apart, while `1.10`, `1.1` and `11e-1`
/// are one. For a document that an ECMAScript program wrote, the result is RFC 8785 to the letter.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// The SHA-256 of some bytes as 64 lower-case hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex digits.
pub(crate) fn hex(digest: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in digest {
        push_hex(&mut hex, *byte);
    }
    hex
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&Decimal::of(number).canonical()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            // UTF-16 order, since the RFC sorts as ECMAScript does: U+1F600 comes before U+FB33.
            members.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (key, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, key);
                out.push(':');
                write_value(out, member);
            }
            out.push('}');
        }
    }
}

/// As `JSON.stringify` writes a string.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}' => {
                out.push_str("\\u00");
                push_hex(out, character as u8);
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing to a String never fails.
    let _ = write!(out, "{byte:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse_json;

    fn canonical(json: &str) -> String {
        canonical_json(&parse_json(json.as_bytes()).unwrap())
    }

    #[test]
    fn the_example_of_rfc_8785_section_3_2_2() {
        let json = r#"{
            "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = concat!(
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        assert_eq!(canonical(json), expected);
    }

    #[test]
    fn the_one_number_of_that_example_with_more_digits_than_a_double_keeps_them() {
        // RFC 8785 itself rounds 333333333.33333329 to 333333333.3333333: that is what the
        // extension is about.
        assert_eq!(canonical("333333333.33333329"), "333333333.33333329");
    }

    #[test]
    fn the_example_of_rfc_8785_section_3_2_3() {
        let json = r#"{
            "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control",
            "\u00f6": "Latin Small Letter O With Diaeresis"
        }"#;
        let expected = [
            "\"\\r\":\"Carriage Return\"",
            "\"1\":\"One\"",
            "\"\u{80}\":\"Control\"",
            "\"ö\":\"Latin Small Letter O With Diaeresis\"",
            "\"€\":\"Euro Sign\"",
            "\"😀\":\"Emoji: Grinning Face\"",
            "\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"",
        ];
        assert_eq!(canonical(json), format!("{{{}}}", expected.join(",")));
    }

    #[test]
    fn the_doubles_of_rfc_8785_appendix_b() {
        let table: [(u64, &str); 22] = [
            (0x0000000000000000, "0"),
            (0x8000000000000000, "0"),
            (0x0000000000000001, "5e-324"),
            (0x8000000000000001, "-5e-324"),
            (0x7fefffffffffffff, "1.7976931348623157e+308"),
            (0xffefffffffffffff, "-1.7976931348623157e+308"),
            (0x4340000000000000, "9007199254740992"),
            (0xc340000000000000, "-9007199254740992"),
            (0x4430000000000000, "295147905179352830000"),
            (0x44b52d02c7e14af5, "9.999999999999997e+22"),
            (0x44b52d02c7e14af6, "1e+23"),
            (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
            (0x444b1ae4d6e2ef4e, "999999999999999700000"),
            (0x444b1ae4d6e2ef4f, "999999999999999900000"),
            (0x444b1ae4d6e2ef50, "1e+21"),
            (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
            (0x3eb0c6f7a0b5ed8d, "0.000001"),
            (0x41b3de4355555553, "333333333.3333332"),
            (0x41b3de4355555554, "333333333.33333325"),
            (0x41b3de4355555555, "333333333.3333333"),
            (0xbecbf647612f3696, "-0.0000033333333333333333"),
            (0x43143ff3c1cb0959, "1424953923781206.2"),
        ];
        for (bits, expected) in table {
            let double = f64::from_bits(bits);
            assert_eq!(
                canonical_json(&Value::from(double)),
                expected,
                "{bits:016x}"
            );
        }
    }

    #[test]
    fn equal_numbers_have_one_spelling_and_unequal_ones_two() {
        for one in ["1.1", "1.10", "11e-1", "0.11E+1", "110e-2", "0.0000011e6"] {
            assert_eq!(canonical(one), "1.1", "{one}");
        }
        for zero in ["0", "-0", "0.0", "0e9", "-0.00e-99999999999999999999999"] {
            assert_eq!(canonical(zero), "0", "{zero}");
        }
        assert_eq!(canonical("12345678901234567890"), "12345678901234567890");
        assert_eq!(canonical("12345678901234567891"), "12345678901234567891");
        assert_eq!(
            canonical("1234567890123456789012"),
            "1.234567890123456789012e+21"
        );
        assert_eq!(
            canonical("-100000000000000000000"),
            "-100000000000000000000"
        );
        assert_eq!(canonical("0.00000123"), "0.00000123");
        assert_eq!(canonical("0.000000123"), "1.23e-7");
    }

    #[test]
    fn a_huge_exponent_costs_nothing() {
        assert_eq!(
            canonical("12e9223372036854775000"),
            "1.2e+9223372036854775001"
        );
        assert_eq!(canonical("1E-999999999"), "1e-999999999");
        let beyond = format!("10e{}", "9".repeat(100));
        let one_more = format!("1e{}", "9".repeat(100));
        assert_ne!(canonical(&beyond), canonical(&one_more));
    }

    #[test]
    fn control_characters_are_escaped_as_json_stringify_does() {
        assert_eq!(
            canonical("\"\\u0000\\u0008\\u0009\\u000b\\u000c\\u001f\\u007f\\u2028\""),
            "\"\\u0000\\b\\t\\u000b\\f\\u001f\u{7f}\u{2028}\""
        );
    }

    #[test]
    fn a_known_hash() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest! {
        #[test]
        fn a_double_is_written_as_its_shortest_spelling(bits in any::<u64>()) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            let text = canonical_json(&Value::from(double));
            prop_assert_eq!(text.parse::<f64>().unwrap(), double);
            prop_assert_eq!(canonical(&text), text);
        }

        #[test]
        fn the_spelling_of_a_number_does_not_matter(
            digits in "[1-9][0-9]{0,40}",
            exponent in -60_i32..60,
            shift in 0_i32..40,
        ) {
            let zeros = "0".repeat(usize::try_from(shift).unwrap());
            let length = i32::try_from(digits.len()).unwrap();
            let plain = canonical(&format!("{digits}e{exponent}"));
            let longer = format!("{digits}{zeros}E{}", exponent - shift);
            prop_assert_eq!(&canonical(&longer), &plain);
            let fraction = format!("0.{zeros}{digits}e{}", exponent + shift + length);
            prop_assert_eq!(&canonical(&fraction), &plain);
        }
    }
}
