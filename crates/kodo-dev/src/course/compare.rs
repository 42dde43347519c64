//! Expected against actual output.

use snapbox::filter::NormalizeToExpected;
use snapbox::report::{Palette, write_diff};
use snapbox::{Data, IntoData};

use crate::course::Expected;

/// How much of a difference is shown.
const SHOWN_LINES: usize = 80;

/// Where and how the output differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Line of the page with the first line that is not as expected.
    pub(crate) line: usize,
    /// The difference for people, line by line.
    pub(crate) diff: String,
}

/// Compares, with `[..]` and `...` as wildcards. White space at the end of a line or of the text does not count.
pub(crate) fn compare(expected: &Expected, actual: &str) -> Option<Difference> {
    let (wanted, actual) = (tidy(&expected.text), tidy(actual));
    let wanted_data: Data = wanted.clone().into_data().raw();
    let fitted = NormalizeToExpected::new()
        .redact()
        .normalize(actual.into_data().raw(), &wanted_data);
    let fitted_text = fitted.render().unwrap_or_default();
    if fitted_text == wanted {
        return None;
    }
    let same = wanted
        .lines()
        .zip(fitted_text.lines())
        .take_while(|(wanted, actual)| wanted == actual)
        .count();
    // One that is only too long differs after the last line that the page shows.
    let last = wanted.lines().count().saturating_sub(1);
    let mut diff = String::new();
    // Writing to a String does not fail.
    let _ = write_diff(
        &mut diff,
        &wanted_data,
        &fitted,
        Some(&"expected, as the course has it"),
        Some(&"actual"),
        Palette::plain(),
    );
    Some(Difference {
        line: expected.line + same.min(last),
        diff: shortened(&diff),
    })
}

/// One line end at the end, none before it.
fn tidy(text: &str) -> String {
    let mut tidy: String = text
        .lines()
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    let end = tidy.trim_end().len();
    tidy.truncate(end);
    tidy.push('\n');
    tidy
}

fn shortened(diff: &str) -> String {
    let lines: Vec<&str> = diff.trim_matches('\n').lines().collect();
    let more = lines.len().saturating_sub(SHOWN_LINES);
    let mut shown = lines[..lines.len() - more].join("\n");
    if more > 0 {
        shown.push_str(&format!("\n… and {more} more lines"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(expected: &str, actual: &str) -> Option<Difference> {
        compare(
            &Expected {
                line: 10,
                text: expected.to_owned(),
            },
            actual,
        )
    }

    #[test]
    fn wildcards_stand_for_what_varies() {
        for (expected, actual) in [
            ("a\nb\n", "a\nb\n"),
            ("a\nb\n", "a  \nb\n\n\n"),
            ("run_[..] is [..]\n", "run_01a2 is done\n"),
            ("...\nlast\n", "one\ntwo\nlast\n"),
            ("...\nlast\n", "last\n"),
            ("first\n...\n", "first\nand\nso on"),
            ("...\nb [..]\n...\nd\n...\n", "a\nb 1\nc\nd\ne\n"),
            ("", ""),
            ("{\"s1\":1}", "{\"s1\":1}"),
        ] {
            assert_eq!(
                difference(expected, actual),
                None,
                "{expected:?} against {actual:?}"
            );
        }
    }

    #[test]
    fn what_differs_is_shown_with_the_line_of_the_page() {
        for (expected, actual, line) in [
            ("a\nb\nc\n", "a\nx\nc\n", 11),
            ("a\n", "a\nb\n", 10),
            ("a\nb\n", "a\n", 11),
            ("a\n", "", 10),
            ("", "a\n", 10),
            ("run_[..] is done\n", "run_1 is gone\n", 10),
            ("...\nlast\n", "one\ntwo\n", 10),
            ("a\n...\nz\n", "b\nz\n", 10),
        ] {
            let found = difference(expected, actual)
                .unwrap_or_else(|| panic!("{expected:?} fits {actual:?}"));
            assert_eq!(found.line, line, "{expected:?} against {actual:?}");
            assert!(found.diff.contains("actual"), "{}", found.diff);
        }
        let found = difference("same\nold\n", "same\nnew\n").unwrap();
        assert!(
            found
                .diff
                .lines()
                .any(|line| line.contains('-') && line.contains("old")),
            "{}",
            found.diff
        );
        assert!(
            found
                .diff
                .lines()
                .any(|line| line.contains('+') && line.contains("new")),
            "{}",
            found.diff
        );
    }

    #[test]
    fn a_long_difference_is_cut() {
        let long: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let found = difference("nothing\n", &long).unwrap();
        assert!(found.diff.lines().count() <= SHOWN_LINES + 1);
        assert!(found.diff.ends_with("more lines"));
    }
}
