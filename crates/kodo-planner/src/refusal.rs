//! A provider's answer that is an error: what it says, and the failure that it means.

use std::time::Duration;

use kodo_contract::ErrorCode;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::Secret;
use crate::failure::Failure;
use crate::sanitize::sanitized;
use crate::told::Told;

/// Where gateways put the header of the provider behind them.
const FORWARDED_RETRY_AFTER: &str = "llm_provider-retry-after";

/// The same in milliseconds.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// An error, and what the provider says about it.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The answer's status; for an error in an answer with the status of a success, the one that fits it.
    pub(crate) status: StatusCode,
    /// Whether the answer had the status of a success.
    pub(crate) in_answer: bool,
    /// How long the provider asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// The provider's own error code.
    pub(crate) code: String,
    /// The parameter that the provider rejects.
    pub(crate) parameter: String,
    /// The provider's message, sanitized.
    pub(crate) message: String,
}

/// What a refusal of the request itself is about, if it is not about how the answer was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The length of what was asked, or of the answer that was asked for.
    Length,
    /// The provider's content filter.
    Content,
    /// Something that another form of the same request does not change.
    Other,
}

impl Refusal {
    /// Reads a response.
    pub(crate) fn read(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        secret: Option<&Secret>,
    ) -> Self {
        let mut refusal = Self::of(Told::of_body(body), status, secret);
        let date = headers.get(DATE);
        let seconds = [RETRY_AFTER.as_str(), FORWARDED_RETRY_AFTER].into_iter();
        let mut pauses = seconds.filter_map(|name| retry_after(headers.get(name)?, date));
        let exact = headers.get(RETRY_AFTER_MS).and_then(milliseconds);
        refusal.retry_after = exact.or_else(|| pauses.next());
        refusal
    }

    /// An error in an answer with the status of a success.
    pub(crate) fn in_answer(told: Told, secret: Option<&Secret>) -> Self {
        let status = StatusCode::from_u16(told.status_in_answer());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            in_answer: true,
            ..Self::of(told, status, secret)
        }
    }

    fn of(told: Told, status: StatusCode, secret: Option<&Secret>) -> Self {
        Self {
            status,
            in_answer: false,
            retry_after: None,
            code: told.code,
            parameter: told.parameter,
            message: sanitized(&told.message, secret),
        }
    }

    /// Whether the provider rejects the request itself, so that another form of it may be accepted.
    pub(crate) fn rejects_request(&self) -> bool {
        let statuses = [
            StatusCode::BAD_REQUEST,
            StatusCode::UNPROCESSABLE_ENTITY,
            StatusCode::NOT_IMPLEMENTED,
        ];
        statuses.contains(&self.status) && self.subject().is_none()
    }

    /// Whether the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        match self.status.as_u16() {
            429 => self.code != "insufficient_quota",
            // Not implemented, and a version of HTTP that is not supported.
            501 | 505 => false,
            // Waited too long for the request; another one is under way; too early; and what gateways say instead.
            408 | 409 | 420 | 423 | 424 | 425 | 499 => true,
            _ => self.status.is_server_error(),
        }
    }

    fn subject(&self) -> Option<Subject> {
        let code = self.code.to_ascii_lowercase();
        let message = self.message.to_ascii_lowercase();
        let says = |words: &[&str]| {
            words
                .iter()
                .any(|it| code.contains(it) || message.contains(it))
        };
        if says(&[
            "content_filter",
            "content_policy",
            "content management policy",
            "responsibleaipolicy",
        ]) {
            Some(Subject::Content)
        } else if says(&[
            "context_length",
            "context_size",
            "context length",
            "context size",
            "context window",
            "maximum context",
            "max_tokens is too large",
            "max_model_len",
            "prompt is too long",
            "input is too long",
            "too many tokens",
            "reduce the length",
        ]) {
            Some(Subject::Length)
        } else if says(&[
            "model_not_found",
            "invalid_api_key",
            "insufficient_quota",
            "billing",
        ]) {
            Some(Subject::Other)
        } else {
            None
        }
    }

    /// The failure of a plan whose request was refused like this after so many retries.
    pub(crate) fn failure(&self, retries: u32) -> Failure {
        let tries = match retries {
            0 => String::new(),
            retries => format!(", {} times", retries + 1),
        };
        let status = match self.in_answer {
            true => format!("an error in its answer{tries}"),
            false => format!("HTTP {}{tries}", self.status.as_u16()),
        };
        let reason = match self.message.as_str() {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let (code, message) = match self.status {
            // The provider's message may contain a part of the key here.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
                ErrorCode::PlannerUnauthorized,
                format!(
                    "the provider does not accept the key ({status}); OC_API_KEY or OC_API_KEY_FILE sets it"
                ),
            ),
            StatusCode::TOO_MANY_REQUESTS => (
                ErrorCode::PlannerRateLimited,
                format!("the provider wants fewer requests ({status}){reason}"),
            ),
            _ if self.may_pass() => (
                ErrorCode::PlannerUnavailable,
                format!("the provider failed ({status}){reason}"),
            ),
            it if it.is_redirection() => (
                ErrorCode::PlannerRejected,
                format!(
                    "the provider redirects ({status}), which is not followed: set OC_BASE_URL to where it leads"
                ),
            ),
            _ => match self.subject() {
                Some(Subject::Content) => (
                    ErrorCode::PlannerFiltered,
                    format!("the provider's content filter rejects the request ({status}){reason}"),
                ),
                Some(Subject::Length) => (
                    ErrorCode::PlannerRejected,
                    format!(
                        "the request and its answer are too long for the model ({status}){reason}; OC_MAX_TOKENS is \
                         the longest answer"
                    ),
                ),
                _ => (
                    ErrorCode::PlannerRejected,
                    format!(
                        "the provider does not accept the request ({status}){reason}; see OC_BASE_URL and OC_MODEL"
                    ),
                ),
            },
        };
        let failure = Failure::new(code, message);
        match self.may_pass() {
            true => failure.may_pass_after(self.retry_after.unwrap_or_default()),
            false => failure,
        }
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

fn milliseconds(value: &HeaderValue) -> Option<Duration> {
    let count = value.to_str().ok()?.trim().parse::<u64>();
    count.ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal::read(status, &HeaderMap::new(), body.as_bytes(), None)
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for status in [408, 409, 425, 429, 500, 502, 503, 504, 520, 529] {
            assert!(refused(status, "").may_pass(), "{status}");
            assert!(refused(status, "").failure(0).passes_after.is_some());
        }
        for status in [301, 400, 401, 402, 403, 404, 405, 413, 422, 501, 505] {
            assert!(!refused(status, "").may_pass(), "{status}");
            assert!(refused(status, "").failure(0).passes_after.is_none());
        }
        let quota = r#"{"error":{"message":"no credit","code":"insufficient_quota"}}"#;
        assert!(!refused(429, quota).may_pass());
    }

    #[test]
    fn a_request_that_is_too_long_or_filtered_is_not_tried_in_another_form() {
        let code = |body: &str| {
            let refusal = refused(400, body);
            assert!(!refusal.rejects_request(), "{body}");
            refusal.failure(0).code
        };
        let long = r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#;
        assert_eq!(code(long), ErrorCode::PlannerRejected);
        let filtered = r#"{"error":{"code":"content_filter","message":"m"}}"#;
        assert_eq!(code(filtered), ErrorCode::PlannerFiltered);
        assert!(refused(400, "Bad Request").rejects_request());
    }

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
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_RETRY_AFTER, header("3"));
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let refusal = Refusal::read(status, &headers, b"", None);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
        headers.insert(RETRY_AFTER_MS, header("1500"));
        let refusal = Refusal::read(status, &headers, b"", None);
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(1500)));
    }
}
