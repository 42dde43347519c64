//! What differs between any two runs, replaced by placeholders; everything else stays byte for byte.
//!
//! Nothing is parsed and written anew, so the order of keys, the spelling of numbers and stray blanks all survive to be
//! compared. A value is replaced only where it has exactly the shape that it must have: a wrong one stays, and shows.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use regex::{Captures, Regex};
use time::format_description::StaticFormatDescription;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// How far the clocks of the service and of the database may be from the test's. Far less than any offset between two
/// time zones, so that local time in the place of UTC shows.
const CLOCK_SLACK: Duration = Duration::from_secs(5 * 60);

/// Times as the API writes them.
const ISO: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Times as Postgres writes them in a session whose time zone is UTC and whose date style is ISO.
const OF_POSTGRES: StaticFormatDescription = format_description!(
    "[year]-[month]-[day] [hour]:[minute]:[second][optional [.[subsecond]]][optional [+00]]"
);

/// Ids of intents and runs, UUIDs, and times of the API as whole JSON strings.
static VOLATILE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = concat!(
        r"(?-u:\b)(?P<kind>it|run)_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}(?-u:\b)",
        r"|(?-u:\b)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?-u:\b)",
        r#"|"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)""#,
    );
    // The pattern is a constant, and every test of this module compiles it.
    #[allow(clippy::expect_used)]
    Regex::new(pattern).expect("a pattern")
});

/// Replaces volatile values in any number of texts. One id has one placeholder in all of them, numbered as they first
/// appear, so that what belongs together still shows.
#[derive(Debug)]
pub struct Normaliser {
    times: RangeInclusive<OffsetDateTime>,
    literals: Vec<(String, String)>,
    seen: HashMap<String, String>,
    counts: HashMap<String, usize>,
}

impl Normaliser {
    /// For texts whose times lie in this span, which is that of the test. Others are wrong, and stay.
    pub fn new(times: RangeInclusive<SystemTime>) -> Self {
        let (from, to) = times.into_inner();
        Self {
            times: OffsetDateTime::from(from) - CLOCK_SLACK
                ..=OffsetDateTime::from(to) + CLOCK_SLACK,
            literals: Vec::new(),
            seen: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// The same, with a placeholder for a value that only the caller can tell from others, such as the id of the
    /// database or its name.
    #[must_use]
    pub fn literal(mut self, value: &str, placeholder: &str) -> Self {
        if !value.is_empty() {
            let pair = (value.to_owned(), placeholder.to_owned());
            self.literals.push(pair);
        }
        self
    }

    /// The text with its placeholders.
    pub fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, placeholder) in &self.literals {
            text = text.replace(value, placeholder);
        }
        let Self {
            times,
            seen,
            counts,
            ..
        } = self;
        let replaced = VOLATILE.replace_all(&text, |found: &Captures<'_>| {
            let whole = &found[0];
            if let Some(iso) = found.name("time") {
                let fits = PrimitiveDateTime::parse(iso.as_str(), ISO)
                    .is_ok_and(|time| times.contains(&time.assume_utc()));
                return if fits {
                    "\"<time>\"".to_owned()
                } else {
                    whole.to_owned()
                };
            }
            if let Some(placeholder) = seen.get(whole) {
                return placeholder.clone();
            }
            let kind = found.name("kind").map_or("uuid", |kind| kind.as_str());
            let count = counts.entry(kind.to_owned()).or_default();
            *count += 1;
            let placeholder = format!("<{kind}-{count}>");
            seen.insert(whole.to_owned(), placeholder.clone());
            placeholder
        });
        replaced.into_owned()
    }

    /// The placeholder of a time as Postgres shows it in UTC, or the text as it is.
    pub fn time_of_postgres(&self, text: &str) -> String {
        let fits = PrimitiveDateTime::parse(text, OF_POSTGRES)
            .is_ok_and(|time| self.times.contains(&time.assume_utc()));
        (if fits { "<time>" } else { text }).to_owned()
    }

    /// The placeholder of a time in milliseconds since 1970, or the text as it is.
    pub fn epoch_ms(&self, text: &str) -> String {
        let fits = text
            .parse::<i64>()
            .ok()
            .filter(|number| number.to_string() == text)
            .and_then(|ms| {
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
            })
            .is_some_and(|time| self.times.contains(&time));
        (if fits { "<epoch-ms>" } else { text }).to_owned()
    }
}

/// The text with a placeholder for each number in it, so that what stands around them shows.
pub fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut in_number = false;
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !in_number {
                out.push_str("<n>");
            }
            in_number = true;
        } else {
            out.push(c);
            in_number = false;
        }
    }
    out
}

/// Compact JSON, a member or element a line. Every character of it is kept, in its order; only line breaks, indentation
/// and the blank after a colon are new. What is no JSON, or not compact, comes out looking odd, but whole.
///
/// Not a JSON library's pretty-printer: that would show what it understood in its own spelling.
pub fn laid_out(json: &str) -> String {
    let mut out = String::new();
    let mut depth = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const IT: &str = "it_01a2078c1ae3761fb12636f4ba808172";
    const RUN: &str = "run_01a2078c1b1273de8739abea3324a234";
    const OTHER: &str = "run_01a2078c1b1273de8739abea3324a235";

    fn at(text: &str) -> SystemTime {
        let time = PrimitiveDateTime::parse(text, ISO).unwrap();
        time.assume_utc().into()
    }

    fn normaliser() -> Normaliser {
        let span = at("2026-01-02T03:04:05.000Z")..=at("2026-01-02T03:04:06.000Z");
        Normaliser::new(span)
    }

    #[test]
    fn one_id_has_one_placeholder_and_another_has_another_across_texts() {
        let mut normaliser = normaliser();
        assert_eq!(
            normaliser.text(&format!(
                "{RUN} of {IT}: artifact://{RUN}/plan/0, not {OTHER}."
            )),
            "<run-1> of <it-1>: artifact://<run-1>/plan/0, not <run-2>."
        );
        assert_eq!(normaliser.text(&format!("\"{OTHER}\"")), "\"<run-2>\"");
        assert_eq!(
            normaliser.text("0c2d06a2-8b4b-4d7c-9b4f-0d2d1f8f9a0b/1"),
            "<uuid-1>/1"
        );
    }

    #[test]
    fn what_only_looks_like_an_id_stays() {
        for text in [
            "run_01A2078C1B1273DE8739ABEA3324A234",
            "run_01a2078c1b1273de8739abea3324a23",
            "run_01a2078c1b1273de8739abea3324a2344",
            "run-01a2078c1b1273de8739abea3324a234",
            // Version 4, and a variant that is none.
            "run_01a2078c1b1243de8739abea3324a234",
            "run_01a2078c1b1273dec739abea3324a234",
            "xrun_01a2078c1b1273de8739abea3324a234",
            "0C2D06A2-8b4b-4d7c-9b4f-0d2d1f8f9a0b",
        ] {
            assert_eq!(normaliser().text(text), text);
        }
    }

    #[test]
    fn a_time_of_the_contracts_shape_in_the_span_of_the_test_is_replaced_and_no_other() {
        assert_eq!(
            normaliser().text(r#"{"startedAt":"2026-01-02T03:04:05.678Z"}"#),
            r#"{"startedAt":"<time>"}"#
        );
        for text in [
            r#""2026-01-02T03:04:05Z""#,
            r#""2026-01-02T03:04:05.67Z""#,
            r#""2026-01-02T03:04:05.678901Z""#,
            r#""2026-01-02T03:04:05.678+00:00""#,
            r#""2026-01-02 03:04:05.678Z""#,
            r#""2026-13-02T03:04:05.678Z""#,
            r#""on 2026-01-02T03:04:05.678Z""#,
            // The wall clock of Kiritimati, and of India, said to be UTC.
            r#""2026-01-02T17:04:05.678Z""#,
            r#""2026-01-02T08:34:05.678Z""#,
        ] {
            assert_eq!(normaliser().text(text), text);
        }
    }

    #[test]
    fn times_of_rows_are_replaced_in_the_span_of_the_test_alone() {
        let normaliser = normaliser();
        for (text, expected) in [
            ("2026-01-02 03:04:05.678901+00", "<time>"),
            ("2026-01-02 03:04:05+00", "<time>"),
            ("2026-01-02 03:04:05.5", "<time>"),
            ("2026-01-02 17:04:05+00", "2026-01-02 17:04:05+00"),
            ("2026-01-02 17:04:05+14", "2026-01-02 17:04:05+14"),
            ("infinity", "infinity"),
        ] {
            assert_eq!(normaliser.time_of_postgres(text), expected);
        }
        for (text, expected) in [
            ("1767323045678", "<epoch-ms>"),
            ("1767323045", "1767323045"),
            ("01767323045678", "01767323045678"),
            ("0", "0"),
            ("", ""),
        ] {
            assert_eq!(normaliser.epoch_ms(text), expected);
        }
    }

    #[test]
    fn what_the_caller_names_is_replaced_wherever_it_stands() {
        let mut normaliser = normaliser()
            .literal("9e598ba1", "<instance>")
            .literal("", "<never>");
        assert_eq!(
            normaliser.text("sisu-kodo-9e598ba1"),
            "sisu-kodo-<instance>"
        );
    }

    #[test]
    fn numbers_go_and_what_stands_around_them_stays() {
        assert_eq!(
            without_numbers("pid:[4026531836]/12/7"),
            "pid:[<n>]/<n>/<n>"
        );
        assert_eq!(without_numbers("none"), "none");
    }

    #[test]
    fn layout_adds_breaks_and_blanks_and_changes_nothing_else() {
        let json = r#"{"z":1.10,"a":{"é\"{,:":[],"e":{}},"l":[1e2,"\u00e9",{"k":null}]}"#;
        let expected = r#"{
  "z": 1.10,
  "a": {
    "é\"{,:": [],
    "e": {}
  },
  "l": [
    1e2,
    "\u00e9",
    {
      "k": null
    }
  ]
}"#;
        assert_eq!(laid_out(json), expected);
        assert_eq!(laid_out(""), "");
        // Blanks that were there still are.
        assert_ne!(laid_out(r#"{"a": 1}"#), laid_out(r#"{"a":1}"#));
        assert_ne!(laid_out("{} "), laid_out("{}"));
        assert_eq!(laid_out("not json"), "not json");
    }
}
