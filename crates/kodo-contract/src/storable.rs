//! What Postgres cannot hold in `jsonb` and `text`, found before it has to say so.

use std::borrow::Cow;

use serde_json::{Number, Value, json};

use crate::{Violation, decimal::Decimal};

/// How long all numbers of one document may be together, written out in plain notation: 1 MiB.
///
/// `jsonb` holds a number as `numeric`, which writes `1e131071` out as 131,072 digits whenever it
/// is read. The bound keeps what is read back of the order of what may be sent.
pub const MAX_NUMBER_BYTES: u64 = 1 << 20;

/// How many digits `numeric` holds before the point.
const MAX_DIGITS_BEFORE: u64 = 131_072;

/// How many digits `numeric` holds after the point.
const MAX_DIGITS_AFTER: u64 = 16_383;

/// How many violations are reported. One is enough to refuse a document, and each carries a path
/// that may be as long as the document: all of them could be many thousand times its size.
const MAX_VIOLATIONS: usize = 16;

/// What is wrong with a value in the eyes of Postgres, in document order; nothing, as a rule, and
/// never more than the first few, with [one that says so](Violation::more).
///
/// The keyword is always `storable`; `params.reason` says what it is about:
///
/// - `nul`: a string or a key with U+0000, which neither `jsonb` nor `text` can hold;
/// - `reserved`: a key that `serde_json` would mistake for its own on the way back;
/// - `number`: a number outside of what `numeric` can hold;
/// - `numbers`: the first number that brings the document over [`MAX_NUMBER_BYTES`].
#[must_use]
pub fn check_storable(value: &Value) -> Vec<Violation> {
    let (mut violations, more) = find_unstorable(value);
    Violation::limit(&mut violations, more);
    violations
}

/// The first few, and whether there are more.
pub(crate) fn find_unstorable(value: &Value) -> (Vec<Violation>, bool) {
    let mut check = Check {
        path: String::new(),
        number_bytes: 0,
        violations: Vec::new(),
        more: false,
    };
    check.value(value);
    (check.violations, check.more)
}

/// Whether `serde_json` gives this key a meaning of its own: it passes exact numbers and raw values
/// through serde as objects with these keys, and cannot tell such an object from one that somebody
/// sent.
pub(crate) fn is_reserved_key(key: &str) -> bool {
    matches!(
        key,
        "$serde_json::private::Number" | "$serde_json::private::RawValue"
    )
}

struct Check {
    /// JSON Pointer to where the walk is.
    path: String,
    number_bytes: u64,
    violations: Vec<Violation>,
    more: bool,
}

impl Check {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.at(&index.to_string(), |check| check.value(item));
                }
            }
            Value::Object(members) => {
                for (key, member) in members {
                    self.at(key, |check| {
                        check.text(key);
                        if is_reserved_key(key) {
                            let message = "must NOT be a reserved property name".to_owned();
                            check.violation(json!({"reason": "reserved"}), message);
                        }
                        check.value(member);
                    });
                }
            }
        }
    }

    fn at(&mut self, token: &str, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push('/');
        self.path.push_str(&escape(token));
        check(self);
        self.path.truncate(length);
    }

    fn text(&mut self, text: &str) {
        if text.contains('\0') {
            let message = "must NOT contain the character U+0000".to_owned();
            self.violation(json!({"reason": "nul"}), message);
        }
    }

    fn number(&mut self, number: &Number) {
        let decimal = Decimal::of(number);
        let digits = decimal
            .plain_digits()
            .filter(|&(before, after)| before <= MAX_DIGITS_BEFORE && after <= MAX_DIGITS_AFTER);
        let Some((before, after)) = digits else {
            let message = format!(
                "must NOT have more than {MAX_DIGITS_BEFORE} digits before or {MAX_DIGITS_AFTER} digits after the \
                 decimal point"
            );
            let params = json!({
                "reason": "number", "limitBefore": MAX_DIGITS_BEFORE, "limitAfter": MAX_DIGITS_AFTER
            });
            self.violation(params, message);
            return;
        };
        let point = u64::from(after > 0);
        let length = u64::from(decimal.is_negative()) + before + point + after;
        let within = self.number_bytes <= MAX_NUMBER_BYTES;
        self.number_bytes = self.number_bytes.saturating_add(length);
        if within && self.number_bytes > MAX_NUMBER_BYTES {
            let message = format!(
                "must NOT bring the numbers of the document over {MAX_NUMBER_BYTES} characters in plain notation"
            );
            self.violation(
                json!({"reason": "numbers", "limit": MAX_NUMBER_BYTES}),
                message,
            );
        }
    }

    fn violation(&mut self, params: Value, message: String) {
        if self.violations.len() == MAX_VIOLATIONS {
            self.more = true;
            return;
        }
        self.violations.push(Violation {
            instance_path: self.path.clone(),
            schema_path: "#/storable".to_owned(),
            keyword: "storable".to_owned(),
            params,
            message,
        });
    }
}

/// A key as a token of a JSON Pointer.
fn escape(token: &str) -> Cow<'_, str> {
    if token.contains(['~', '/']) {
        Cow::Owned(token.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_json;

    /// Path and reason of each violation.
    fn found(json: &str) -> Vec<(String, String)> {
        let value = parse_json(json.as_bytes()).unwrap();
        let violations = check_storable(&value).into_iter();
        violations
            .map(|it| {
                let reason = it.params["reason"].as_str().unwrap_or_default().to_owned();
                (it.instance_path, reason)
            })
            .collect()
    }

    fn one(path: &str, reason: &str) -> Vec<(String, String)> {
        vec![(path.to_owned(), reason.to_owned())]
    }

    #[test]
    fn ordinary_documents_are_storable() {
        let json = r#"{"a":[1,-2.50,1e30,"é😀\u0001"],"":null,"b/~":{"x":0.0000001}}"#;
        assert_eq!(found(json), []);
    }

    #[test]
    fn a_nul_is_pointed_at_wherever_it_stands() {
        assert_eq!(found(r#""\u0000""#), one("", "nul"));
        assert_eq!(
            found(r#"{"inputs":{"a/b~":["x","y\u0000z"]}}"#),
            one("/inputs/a~1b~0/1", "nul")
        );
        assert_eq!(found(r#"{"a":{"k\u0000":1}}"#), one("/a/k\0", "nul"));
        assert_eq!(found(r#"{"\u0000":"\u0000"}"#).len(), 2);
    }

    #[test]
    fn a_long_path_to_many_violations_is_not_repeated_for_all_of_them() {
        let key = "k".repeat(400_000);
        let nuls = vec![r#""\u0000""#; 50_000].join(",");
        let found = found(&format!(r#"{{"{key}":[{nuls}]}}"#));
        assert_eq!(found.len(), MAX_VIOLATIONS + 1);
        assert_eq!(found[MAX_VIOLATIONS].0, "", "the one that says so");
    }

    #[test]
    fn a_reserved_key_is_refused() {
        let value = json!({"a": {"$serde_json::private::Number": "1"}});
        let violations = check_storable(&value);
        assert_eq!(
            violations[0].instance_path,
            "/a/$serde_json::private::Number"
        );
        assert_eq!(violations[0].params["reason"], "reserved");
    }

    // The edges are those that a Postgres 15 server showed when asked for each of these as jsonb.
    #[test]
    fn numbers_are_held_to_the_limits_of_numeric() {
        for fits in [
            "1e131071",
            "-9.9e131071",
            "1e-16383",
            "0.1e-16382",
            "0e-16383",
            "0e1073741822",
        ] {
            assert_eq!(found(fits), [], "{fits}");
        }
        for (number, reason) in [
            ("1e131072", "number"),
            ("10e131071", "number"),
            ("1e200000", "number"),
            ("1e-16384", "number"),
            ("1.0e-16383", "number"),
            ("1e-20000", "number"),
            ("0e-16384", "number"),
            ("0e1073741823", "number"),
            ("1e99999999999999999999999", "number"),
            ("1e-9223372036854775808", "number"),
            ("12e9223372036854775807", "number"),
        ] {
            assert_eq!(found(number), one("", reason), "{number}");
        }
    }

    #[test]
    fn the_first_number_over_the_budget_is_the_one_that_is_named() {
        let eight = ["1e131071"; 8].join(",");
        assert_eq!(found(&format!("[{eight}]")), []);
        assert_eq!(found(&format!("[{eight},7,8]")), one("/8", "numbers"));
        let negative = eight.replacen('1', "-1", 1);
        assert_eq!(found(&format!("[{negative}]")), one("/7", "numbers"));
    }
}
