//! Validation at egress: what leaves passes its own schema.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{Boundary, encode};

use crate::error::ApiError;
use crate::http::answer::{self, Subject};

/// Answers 200 with this value.
///
/// # Errors
/// The value does not pass its schema: its rows were written by somebody else, or by a mistake of ours, and the client
/// must not build on them.
pub(crate) fn answer<T: Boundary>(
    value: &T,
    subject: impl Into<Subject>,
) -> Result<Response, ApiError> {
    let value =
        encode(value).map_err(|invalid| ApiError::Internal(format!("egress: {invalid}")))?;
    Ok(answer::of(StatusCode::OK, &value, subject)?)
}

#[cfg(test)]
mod tests {
    use kodo_contract::{ArtifactRef, RunId, RunStatus, RunView};

    use super::*;
    use crate::testing::read;

    #[tokio::test]
    async fn a_view_leaves_with_its_keys_in_the_order_of_the_contract() {
        let id = RunId::generate();
        let view = RunView {
            run_id: id.clone(),
            status: RunStatus::Queued,
            steps: Vec::new(),
            artifacts: Vec::new(),
            trace_id: None,
        };
        let expected = format!(
            r#"{{"runId":"{id}","status":"queued","steps":[],"artifacts":[],"traceId":null}}"#
        );
        let response = answer(&view, id).unwrap();
        assert_eq!(read(response).await, (200, expected));
    }

    #[test]
    fn a_view_that_does_not_pass_its_schema_stays_inside() {
        let view = RunView {
            run_id: RunId::generate(),
            status: RunStatus::Succeeded,
            steps: Vec::new(),
            artifacts: vec![ArtifactRef {
                kind: "file".into(),
                uri: "artifact://x".into(),
                inline: serde_json::Value::Null,
                sha256: "not a hash".into(),
            }],
            trace_id: None,
        };
        let error = answer(&view, view.run_id.clone()).unwrap_err();
        assert!(
            matches!(&error, ApiError::Internal(cause) if cause.contains("egress")),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "internal error");
    }
}
