//! Asking a provider again that has too much to do or fails, and giving up in time.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, FailureCode};
use crate::retry::{MAX_RETRIES, backoff};
use crate::wire::Refusal;

/// The pauses of one request.
#[derive(Debug)]
pub(crate) struct Patience {
    first_pause: Duration,
    deadline: Instant,
    retries: u32,
}

impl Patience {
    pub(crate) fn new(first_pause: Duration, deadline: Instant) -> Self {
        Self {
            first_pause,
            deadline,
            retries: 0,
        }
    }

    /// Waits until the provider may be asked again.
    ///
    /// # Errors
    /// Where asking again does not help, was done often enough, or would be too late.
    pub(crate) async fn after(&mut self, refusal: &Refusal, key: &str) -> Result<(), Failure> {
        let status = refusal.status;
        let out_of_credit = refusal.code == "insufficient_quota";
        let may_pass =
            status == StatusCode::TOO_MANY_REQUESTS && !out_of_credit || status.is_server_error();
        if !may_pass || self.retries == MAX_RETRIES {
            return Err(final_failure(refusal, self.retries));
        }
        let pause = refusal
            .retry_after
            .unwrap_or_else(|| backoff(self.first_pause, self.retries, key));
        // A provider may ask for a pause beyond any clock.
        if Instant::now()
            .checked_add(pause)
            .is_none_or(|then| then >= self.deadline)
        {
            let mut failure = final_failure(refusal, self.retries);
            failure.message.push_str(&format!(
                "; the next try, in {} s, would be beyond the deadline of OC_DEADLINE_MS",
                pause.as_secs()
            ));
            return Err(failure);
        }
        tracing::warn!(
            status = status.as_u16(),
            retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the provider did not answer; asking again"
        );
        sleep(pause).await;
        self.retries += 1;
        Ok(())
    }
}

/// The failure that a status means, after so many retries.
pub(crate) fn final_failure(refusal: &Refusal, retries: u32) -> Failure {
    let status = refusal.status;
    let said = match refusal.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let tries = match retries {
        0 => String::new(),
        retries => format!(", {} times", retries + 1),
    };
    let (code, message) = match status {
        // What the provider says here may show a part of the key.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            FailureCode::PlannerUnauthorized,
            format!(
                "the provider does not take the key (HTTP {}); OC_API_KEY or OC_API_KEY_FILE sets it",
                status.as_u16()
            ),
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            FailureCode::PlannerRateLimited,
            format!("the provider wants fewer requests (HTTP 429{tries}){said}"),
        ),
        status if status.is_server_error() => (
            FailureCode::PlannerUnavailable,
            format!(
                "the provider failed (HTTP {}{tries}){said}",
                status.as_u16()
            ),
        ),
        status if status.is_redirection() => (
            FailureCode::PlannerRejected,
            format!(
                "the provider redirects (HTTP {}), which is not followed: set OC_BASE_URL to where it leads",
                status.as_u16()
            ),
        ),
        status => (
            FailureCode::PlannerRejected,
            format!(
                "the provider does not take the request (HTTP {}){said}; see OC_BASE_URL and OC_MODEL",
                status.as_u16()
            ),
        ),
    };
    Failure::new(code, message)
}
