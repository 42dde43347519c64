//! A provider's answer with a status other than success: what it says, and the failure that it means.

use std::time::Duration;

use kodo_contract::{ErrorCode, parse_json};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;

use crate::Secret;
use crate::failure::Failure;
use crate::sanitize::sanitized;

/// A status other than success, and what the provider says about it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// How long the provider asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// The provider's own error code.
    pub(crate) code: String,
    /// The parameter that the provider rejects.
    pub(crate) parameter: String,
    /// The provider's message, sanitized.
    pub(crate) message: String,
}

impl Refusal {
    /// Reads a response. A body that is no JSON is the message itself.
    pub(crate) fn read(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        secret: Option<&Secret>,
    ) -> Self {
        let error = match parse_json(body) {
            Ok(mut value) => value["error"].take(),
            Err(_) => Value::Null,
        };
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let message = match error["message"].as_str().or(error.as_str()) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        Self {
            status,
            retry_after: headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value, headers.get(DATE))),
            code: text("code"),
            parameter: text("param"),
            message: sanitized(&message, secret),
        }
    }

    /// Whether the provider rejects the request itself, so that another form of it may be accepted.
    pub(crate) fn rejects_request(&self) -> bool {
        matches!(
            self.status,
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
        )
    }

    /// Whether the same request may succeed after a short pause.
    pub(crate) fn may_pass(&self) -> bool {
        let out_of_credit = self.code == "insufficient_quota";
        self.status == StatusCode::TOO_MANY_REQUESTS && !out_of_credit
            || self.status.is_server_error()
    }

    /// The failure of a plan whose request was refused like this after so many retries.
    pub(crate) fn failure(&self, retries: u32) -> Failure {
        let status = self.status.as_u16();
        let reason = match self.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let tries = match retries {
            0 => String::new(),
            retries => format!(", {} times", retries + 1),
        };
        let (code, message) = match self.status {
            // The provider's message may contain a part of the key here.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
                ErrorCode::PlannerUnauthorized,
                format!(
                    "the provider does not accept the key (HTTP {status}); OC_API_KEY or OC_API_KEY_FILE sets it"
                ),
            ),
            StatusCode::TOO_MANY_REQUESTS => (
                ErrorCode::PlannerRateLimited,
                format!("the provider wants fewer requests (HTTP 429{tries}){reason}"),
            ),
            it if it.is_server_error() => (
                ErrorCode::PlannerUnavailable,
                format!("the provider failed (HTTP {status}{tries}){reason}"),
            ),
            it if it.is_redirection() => (
                ErrorCode::PlannerRejected,
                format!(
                    "the provider redirects (HTTP {status}), which is not followed: set OC_BASE_URL to where it leads"
                ),
            ),
            _ => (
                ErrorCode::PlannerRejected,
                format!(
                    "the provider does not accept the request (HTTP {status}){reason}; see OC_BASE_URL and OC_MODEL"
                ),
            ),
        };
        Failure::new(code, message)
    }
}

/// Reads a `Retry-After` header in either form: seconds, or a date. A date is compared with the `Date` of the same
/// answer, so that no two clocks have to agree.
fn retry_after(value: &HeaderValue, date: Option<&HeaderValue>) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(date?.to_str().ok()?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
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
}
