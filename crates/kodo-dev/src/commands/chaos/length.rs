//! How long a soak lasts, as people write it.

use std::time::Duration;

/// Longer than anybody waits for; shorter than what a clock can hold.
const MOST: u64 = 7 * 24 * 3600;

/// `30s`, `5m`, `1h`, or a number of seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let accepted = || format!("{text:?} is no length: write 30s, 5m or 1h");
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, unit @ ('s' | 'm' | 'h'))) => (&text[..at], unit),
        _ => (text, 's'),
    };
    let number: u64 = number.parse().map_err(|_| accepted())?;
    let seconds = number.saturating_mul(match unit {
        'h' => 3600,
        'm' => 60,
        _ => 1,
    });
    if (1..=MOST).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(accepted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_minutes_and_hours_are_read() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h", 3600), ("90", 90)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused_with_what_is() {
        for text in [
            "",
            "m",
            "0s",
            "-1s",
            "5 m",
            "1d",
            "1.5m",
            "99999999999999999999s",
            "9999h",
        ] {
            assert!(
                parse(text).is_err_and(|said| said.contains("30s")),
                "{text}"
            );
        }
    }
}
