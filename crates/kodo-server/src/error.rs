//! The errors of the API and their HTTP answers. The only place that maps errors to HTTP.
//!
//! Which to use: a variant without a cause is for the client to correct; its text is part of the API: stable, and
//! without internals. [`ApiError::Unavailable`] means that the same request can succeed later. [`ApiError::Internal`]
//! is a bug, or rows that somebody else changed. The causes of these two reach the log line of the request and not the
//! client.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kodo_contract::{Invalid, MAX_ID_BYTES, Violation};
use kodo_engine::{EngineError, WorkspaceError};
use kodo_store::StoreError;
use kodo_store::content::ArtifactError;
use serde::Serialize;

use crate::http::answer::{self, Cause};

/// A request that was not carried out. `Display` is the text that the client gets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("not found")]
    NotFound,
    #[error("method not allowed")]
    MethodNotAllowed,
    #[error("intent not found")]
    IntentNotFound,
    #[error("run not found")]
    RunNotFound,
    #[error("run has no workspace")]
    NoWorkspace,
    /// The text says which path, and which calls.
    #[error("workspace conflict{0}")]
    WorkspaceConflict(String),
    #[error("artifact not found")]
    ArtifactNotFound,
    #[error("artifact id must be a sha256 of 64 lower-case hexadecimal digits")]
    NoContentHash,
    #[error("range not satisfiable")]
    RangeNotSatisfiable(u64),
    #[error("artifact content is missing from the artifact store")]
    ArtifactGone(String),
    #[error("artifact content does not fit its hash")]
    ArtifactDamaged(String),
    #[error("id must be at most {MAX_ID_BYTES} bytes")]
    IdTooLong,
    #[error("wf query param required")]
    WfRequired,
    #[error("wf must be at most {MAX_ID_BYTES} bytes")]
    WfTooLong,
    #[error("wf must be percent-encoded UTF-8 without U+0000")]
    WfUnreadable,
    /// The text is for the log: the contract fixes the answer.
    #[error("invalid json")]
    InvalidJson(String),
    /// The body has a `Content-Encoding`, so it is not JSON as it was sent.
    #[error("invalid json")]
    EncodedBody(Box<Violation>),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("invalid request body")]
    BrokenBody,
    #[error("payload too large")]
    PayloadTooLarge,
    #[error("payload too large: an upload has at most {0} bytes (MAX_UPLOAD_BYTES)")]
    UploadTooLarge(u64),
    #[error("request timeout")]
    SlowBody,
    #[error("Idempotency-Key must be one header of 1 to 255 visible ASCII characters")]
    BadIdempotencyKey,
    #[error("idempotency key reused with a different request")]
    IdempotencyKeyReused,
    #[error("workflow id belongs to another workflow")]
    WorkflowIdTaken,
    #[error("Host must be one header with a host, and a port if it is not the usual one")]
    BadHost,
    #[error("unauthorized")]
    Unauthorized,
    #[error("forbidden origin")]
    ForbiddenOrigin,
    #[error("unavailable")]
    Unavailable(String),
    #[error("internal error")]
    Internal(String),
}

impl ApiError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound
            | Self::IntentNotFound
            | Self::RunNotFound
            | Self::NoWorkspace
            | Self::ArtifactNotFound => StatusCode::NOT_FOUND,
            Self::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::ArtifactGone(_) => StatusCode::GONE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::IdTooLong
            | Self::NoContentHash
            | Self::WfRequired
            | Self::WfTooLong
            | Self::WfUnreadable
            | Self::InvalidJson(_)
            | Self::EncodedBody(_)
            | Self::Invalid(_)
            | Self::BrokenBody
            | Self::BadHost
            | Self::BadIdempotencyKey => StatusCode::BAD_REQUEST,
            Self::PayloadTooLarge | Self::UploadTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::WorkflowIdTaken | Self::WorkspaceConflict(_) => StatusCode::CONFLICT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForbiddenOrigin => StatusCode::FORBIDDEN,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) | Self::ArtifactDamaged(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn details(&self) -> Option<&[Violation]> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.violations),
            Self::EncodedBody(violation) => Some(std::slice::from_ref(&**violation)),
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a [Violation]>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: &self.to_string(),
            details: self.details(),
        };
        let mut response = match serde_json::to_string(&body) {
            Ok(text) => answer::json(self.status(), text),
            // Texts and violations always serialize; should one fail to, the client still gets the status.
            Err(_) => answer::json(self.status(), r#"{"error":"internal error"}"#),
        };
        let headers = response.headers_mut();
        match &self {
            Self::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::RangeNotSatisfiable(size) => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            // The rest of the body is not read, so the connection cannot carry another request.
            Self::PayloadTooLarge | Self::UploadTooLarge(_) | Self::SlowBody | Self::BrokenBody => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if let Self::Unavailable(cause)
        | Self::Internal(cause)
        | Self::InvalidJson(cause)
        | Self::ArtifactGone(cause)
        | Self::ArtifactDamaged(cause) = self
        {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::Unavailable(error.to_string())
        } else {
            Self::Internal(error.to_string())
        }
    }
}

/// A store that does not answer may do so later. Content that is missing will not come back by itself, and damaged
/// content is not served.
impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        let cause = error.to_string();
        match error {
            ArtifactError::Missing => Self::ArtifactGone(cause),
            ArtifactError::Damaged(_) => Self::ArtifactDamaged(cause),
            ArtifactError::Unavailable(_) | ArtifactError::Full(_) | ArtifactError::Denied(_) => {
                Self::Unavailable(cause)
            }
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match &error {
            EngineError::Unavailable => Self::Unavailable(error.to_string()),
            EngineError::TakenByAnotherWorkflow => Self::WorkflowIdTaken,
            EngineError::Refused(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<WorkspaceError> for ApiError {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::Store(error) => error.into(),
            WorkspaceError::Artifacts(error) => error.into(),
            WorkspaceError::Conflict(conflict) => Self::WorkspaceConflict(format!(": {conflict}")),
            WorkspaceError::Unreadable(failure) => Self::Internal(failure.to_string()),
        }
    }
}

/// Our own types always serialize; should one fail to, that is a bug.
impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(format!("an answer does not serialize: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::read;

    #[tokio::test]
    async fn a_cause_reaches_the_log_and_never_the_client() {
        for (error, status, text) in [
            (
                ApiError::Internal("password=hunter2".into()),
                500,
                r#"{"error":"internal error"}"#,
            ),
            (
                ApiError::Unavailable("10.0.0.7 refused".into()),
                503,
                r#"{"error":"unavailable"}"#,
            ),
        ] {
            let response = error.into_response();
            assert!(response.extensions().get::<Cause>().is_some());
            assert_eq!(read(response).await, (status, text.to_owned()));
        }
    }

    #[tokio::test]
    async fn unavailable_says_when_to_try_again_and_unauthorized_says_how_to_ask() {
        let response = ApiError::Unavailable(String::new()).into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        let response = ApiError::Unauthorized.into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(response.headers()["content-type"], "application/json");
    }

    #[tokio::test]
    async fn an_answer_that_leaves_a_body_unread_closes_the_connection() {
        for error in [
            ApiError::PayloadTooLarge,
            ApiError::UploadTooLarge(1),
            ApiError::SlowBody,
            ApiError::BrokenBody,
        ] {
            assert_eq!(error.into_response().headers()["connection"], "close");
        }
    }

    #[tokio::test]
    async fn violations_follow_the_text_as_details() {
        let value = kodo_contract::parse_json(b"[]").unwrap();
        let invalid = kodo_contract::decode::<kodo_contract::RunRequest>(&value).unwrap_err();
        let (status, body) = read(ApiError::from(invalid).into_response()).await;
        assert_eq!(status, 400);
        assert_eq!(
            body,
            r##"{"error":"invalid RunRequest: data must be object","details":[{"instancePath":"","schemaPath":"#/type","keyword":"type","params":{"type":"object"},"message":"must be object"}]}"##
        );
    }
}
