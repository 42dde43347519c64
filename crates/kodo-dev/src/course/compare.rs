//! Expected against actual output.

use snapbox::filter::NormalizeToExpected;
use snapbox::report::{Palette, write_diff};
use snapbox::{Data, IntoData};

/// How much of a difference is shown.
const SHOWN_LINES: usize = 80;

/// Compares, with `[..]` and `...` as wildcards. White space at the end of a line or of the text does not count. Returns
/// how many lines are as expected before the first that is not, and the difference for people; `None` if it fits.
pub(super) fn compare(expected: &str, actual: &str) -> Option<(usize, String)> {
    let (wanted, actual) = (tidy(expected), tidy(actual));
    let wanted_data: Data = wanted.clone().into_data().raw();
    let fitted = NormalizeToExpected::new()
        .redact()
        .normalize(actual.into_data().raw(), &wanted_data);
    let fitted_text = fitted.render().unwrap_or_default();
    if fitted_text == wanted {
        return None;
    }
    let pairs = wanted.lines().zip(fitted_text.lines());
    let same = pairs
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
    let lines: Vec<&str> = diff.trim_matches('\n').lines().collect();
    let mut shown = lines[..lines.len().min(SHOWN_LINES)].join("\n");
    if lines.len() > SHOWN_LINES {
        shown.push_str(&format!("\n… and {} more lines", lines.len() - SHOWN_LINES));
    }
    Some((same.min(last), shown))
}

/// One line end at the end, none before it.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(compare(expected, actual), None, "{expected:?} {actual:?}");
        }
    }

    #[test]
    fn what_differs_is_shown_with_its_line() {
        for (expected, actual, line) in [
            ("a\nb\nc\n", "a\nx\nc\n", 1),
            ("a\n", "a\nb\n", 0),
            ("a\nb\n", "a\n", 1),
            ("a\n", "", 0),
            ("", "a\n", 0),
            ("run_[..] is done\n", "run_1 is gone\n", 0),
            ("...\nlast\n", "one\ntwo\n", 0),
            ("a\n...\nz\n", "b\nz\n", 0),
        ] {
            let found = compare(expected, actual);
            let (same, diff) = found.unwrap_or_else(|| panic!("{expected:?} fits {actual:?}"));
            assert_eq!(same, line, "{expected:?} against {actual:?}");
            assert!(diff.contains("actual"), "{diff}");
        }
        let (_, diff) = compare("same\nold\n", "same\nnew\n").unwrap();
        let has = |sign, word| {
            diff.lines()
                .any(|it| it.contains(sign) && it.contains(word))
        };
        assert!(has('-', "old") && has('+', "new"), "{diff}");
    }

    #[test]
    fn a_long_difference_is_cut() {
        let long: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let (_, diff) = compare("nothing\n", &long).unwrap();
        assert!(diff.lines().count() <= SHOWN_LINES + 1);
        assert!(diff.ends_with("more lines"));
    }
}
