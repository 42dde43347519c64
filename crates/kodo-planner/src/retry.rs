//! Sending a request again that got no answer, after a pause, until the deadline of its plan.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kodo_contract::{ErrorCode, sha256_hex};
use tokio::time::{Instant, sleep, timeout_at};

use crate::failure::Failure;

/// The longest pause that we choose ourselves; a provider may ask for a longer one.
const LONGEST: Duration = Duration::from_secs(8);

/// The shortest pause, once it has grown, where a provider asks for none.
const LEAST: Duration = Duration::from_secs(1);

/// How long a plan may take, and why its last try got no answer.
#[derive(Debug)]
pub(crate) struct Time {
    deadline: Instant,
    allowed: Duration,
    last: Mutex<Option<Failure>>,
}

impl Time {
    /// A plan that begins now.
    pub(crate) fn of(allowed: Duration) -> Self {
        Self {
            deadline: Instant::now() + allowed,
            allowed,
            last: Mutex::default(),
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Failure>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` until the deadline. If that comes in the middle of a try, the failure is that of the last one before it, if
    /// there was one: which of the two ends the plan must not depend on the moment.
    pub(crate) async fn bound<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if let Ok(done) = timeout_at(self.deadline, work).await {
            return done;
        }
        let allowed = self.allowed.as_millis();
        Err(match self.last().clone() {
            Some(mut failure) => {
                failure.message.push_str(&format!(
                    "; another try got no answer within the deadline of {allowed} ms, which OC_DEADLINE_MS sets"
                ));
                failure
            }
            None => Failure::passing(
                ErrorCode::PlannerDeadline,
                format!(
                    "no plan came within {allowed} ms; OC_DEADLINE_MS says how long it may take"
                ),
            ),
        })
    }
}

/// The retries of one request.
#[derive(Debug)]
pub(crate) struct Retries<'a> {
    first_pause: Duration,
    time: &'a Time,
    count: u32,
}

impl<'a> Retries<'a> {
    pub(crate) fn new(first_pause: Duration, time: &'a Time) -> Self {
        Self {
            first_pause,
            time,
            count: 0,
        }
    }

    /// How often the request was sent again.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Waits before the next try. `key` is the request's idempotency key.
    ///
    /// # Errors
    /// The failure of the last try, if another one cannot help or would be too late.
    pub(crate) async fn wait(&mut self, failure: Failure, key: &str) -> Result<(), Failure> {
        let Some(asked) = failure.passes_after else {
            return Err(failure);
        };
        let own = backoff(self.first_pause, self.count, key);
        let pause = match asked {
            Duration::ZERO => own,
            asked => asked.max(own.min(LEAST)),
        };
        // A provider may ask for a pause that no clock can express.
        let next = Instant::now().checked_add(pause);
        if next.is_none_or(|then| then >= self.time.deadline) {
            let mut failure = failure;
            failure.message.push_str(&format!(
                "; the next try, in {} ms, would be beyond the deadline of OC_DEADLINE_MS",
                pause.as_millis()
            ));
            return Err(failure);
        }
        tracing::warn!(
            code = %failure.code,
            reason = %failure,
            retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "no answer from the planner's provider; asking again"
        );
        *self.time.last() = Some(failure);
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

    #[tokio::test]
    async fn what_passes_is_tried_until_the_deadline_and_its_last_reason_is_told() {
        let time = Time::of(Duration::from_millis(200));
        let failure = || Failure::passing(ErrorCode::PlannerUnavailable, "loading");
        let mut retries = Retries::new(Duration::from_millis(1), &time);
        let ended = loop {
            if let Err(ended) = retries.wait(failure(), "key").await {
                break ended;
            }
        };
        // Pauses of 1, 2, 4, … ms at most.
        assert!(retries.count() >= 6, "{}", retries.count());
        assert_eq!(ended.code, ErrorCode::PlannerUnavailable);
        assert!(ended.message.contains("OC_DEADLINE_MS") && ended.passes_after.is_some());
        let hangs = time.bound::<()>(std::future::pending()).await.unwrap_err();
        assert_eq!(hangs.code, ErrorCode::PlannerUnavailable);
        assert!(hangs.message.starts_with("loading; another try"), "{hangs}");
        let time = Time::of(Duration::from_millis(1));
        let hangs = time.bound::<()>(std::future::pending()).await.unwrap_err();
        assert_eq!(hangs.code, ErrorCode::PlannerDeadline);
    }

    #[tokio::test]
    async fn a_pause_is_no_shorter_than_the_provider_asks_for() {
        let time = Time::of(Duration::from_secs(60));
        let mut retries = Retries::new(Duration::from_millis(1), &time);
        let busy = |pause| Failure::new(ErrorCode::PlannerRateLimited, "m").may_pass_after(pause);
        let began = Instant::now();
        let asked = Duration::from_millis(50);
        retries.wait(busy(asked), "key").await.unwrap();
        assert!(began.elapsed() >= asked);
        for beyond in [Duration::from_secs(100), Duration::MAX] {
            let failure = retries.wait(busy(beyond), "key").await.unwrap_err();
            assert_eq!(failure.passes_after, Some(beyond));
        }
        let permanent = Failure::new(ErrorCode::PlannerRejected, "m");
        let failure = retries.wait(permanent.clone(), "key").await.unwrap_err();
        assert_eq!(failure, permanent);
    }
}
