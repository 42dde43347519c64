//! Sending a request again that a provider refused: in another dialect, or after a pause, and giving up in time.

use std::time::Duration;

use kodo_contract::sha256_hex;
use tokio::time::{Instant, sleep};

use crate::dialect::Dialect;
use crate::failure::Failure;
use crate::refusal::Refusal;

/// How often a request is sent again after a 429 or 5xx.
const MAX_RETRIES: u32 = 4;

/// The longest pause that we choose ourselves; a provider may ask for a longer one.
const LONGEST: Duration = Duration::from_secs(8);

/// The retries of one request.
#[derive(Debug)]
pub(crate) struct Retries {
    first_pause: Duration,
    deadline: Instant,
    count: u32,
}

impl Retries {
    pub(crate) fn new(first_pause: Duration, deadline: Instant) -> Self {
        Self {
            first_pause,
            deadline,
            count: 0,
        }
    }

    /// Prepares the next try after a refusal: changes the dialect if the request itself was rejected, otherwise waits.
    /// A dialect that `accept` does not accept is not tried.
    ///
    /// # Errors
    /// The failure that the refusal means, if another try cannot help, was made often enough or would be too late.
    pub(crate) async fn prepare(
        &mut self,
        refusal: &Refusal,
        key: &str,
        dialect: &mut Dialect,
        accept: impl FnOnce(&Dialect) -> bool,
    ) -> Result<(), Failure> {
        if refusal.rejects_request() {
            let next = dialect.after_rejection(&refusal.parameter, &refusal.message);
            *dialect = next.filter(accept).ok_or_else(|| refusal.failure(0))?;
            return Ok(());
        }
        if !refusal.may_pass() || self.count == MAX_RETRIES {
            return Err(refusal.failure(self.count));
        }
        let pause = refusal
            .retry_after
            .unwrap_or_else(|| backoff(self.first_pause, self.count, key));
        // A provider may ask for a pause that no clock can express.
        if Instant::now()
            .checked_add(pause)
            .is_none_or(|then| then >= self.deadline)
        {
            let mut failure = refusal.failure(self.count);
            failure.message.push_str(&format!(
                "; the next try, in {} s, would be beyond the deadline of OC_DEADLINE_MS",
                pause.as_secs()
            ));
            return Err(failure);
        }
        tracing::warn!(
            status = refusal.status.as_u16(),
            retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the provider did not answer; asking again"
        );
        sleep(pause).await;
        self.count += 1;
        Ok(())
    }
}

/// The pause before retry number `retry` (from 0). The upper bound doubles each time; the pause is between half of it and
/// all of it, chosen by the request's key, so that runs that were refused together do not come back together.
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
