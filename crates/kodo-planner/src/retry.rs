//! How long to wait before a provider is asked again.

use std::time::Duration;

use kodo_contract::sha256_hex;
use reqwest::header::HeaderValue;

/// How often a request is sent again that met 429 or 5xx.
pub(crate) const MAX_RETRIES: u32 = 4;

/// The longest pause that we choose ourselves; a provider may ask for a longer one.
const LONGEST: Duration = Duration::from_secs(8);

/// What `Retry-After` asks for, in either of its forms: seconds, or a date. A date is compared with the answer's own
/// `Date`, so that no two clocks have to agree.
pub(crate) fn retry_after(value: &HeaderValue, date: Option<&HeaderValue>) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(date?.to_str().ok()?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// The pause before retry number `retry`, from 0: doubled each time, between half of it and all of it. Where exactly
/// depends on the request, so that runs that were refused together do not come back together.
pub(crate) fn backoff(first: Duration, retry: u32, idempotency_key: &str) -> Duration {
    let pause = first
        .saturating_mul(1 << retry.min(16))
        .min(LONGEST.max(first));
    let hash = sha256_hex(format!("{idempotency_key}/{retry}").as_bytes());
    let share = u8::from_str_radix(&hash[..2], 16).unwrap_or(0);
    pause / 2 + pause / 2 * u32::from(share) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let header = |text: &str| HeaderValue::from_str(text).unwrap();
        let now = header("Sun, 06 Nov 1994 08:49:37 GMT");
        let ask = |text: &str| retry_after(&header(text), Some(&now));
        assert_eq!(ask("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            ask("Sun, 06 Nov 1994 08:50:07 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(ask("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for nonsense in ["", "-1", "1.5", "soon"] {
            assert_eq!(ask(nonsense), None);
        }
        assert_eq!(
            retry_after(&header("Sun, 06 Nov 1994 08:50:07 GMT"), None),
            None
        );
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_differ_between_runs() {
        let first = Duration::from_millis(500);
        for retry in 0..40 {
            let full = first.saturating_mul(1 << retry.min(16)).min(LONGEST);
            let pause = backoff(first, retry, "run_1/plan");
            assert!(full / 2 <= pause && pause <= full, "{retry}: {pause:?}");
        }
        let pauses: std::collections::BTreeSet<_> = (0..20)
            .map(|run| backoff(first, 0, &format!("run_{run}/plan")))
            .collect();
        assert!(pauses.len() > 10);
    }
}
