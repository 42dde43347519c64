//! `GET /runs/:id`: a run, validated at egress.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{RunId, RunView, encode};

use crate::api::params;
use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::{self, Subject};

pub(crate) async fn handler(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    app.open_for_reads()?;
    let id = params::path_id(request.uri().path(), RunId::parse)?.ok_or(ApiError::RunNotFound)?;
    let view = app
        .in_time(async { Ok(app.store().run_view(&id).await?) })
        .await?
        .ok_or(ApiError::RunNotFound)?;
    let subject = Subject {
        run: Some(id),
        ..Subject::default()
    };
    Ok(answer::json_about(StatusCode::OK, leave(&view)?, subject))
}

/// Lets a view out. One that does not pass was written by somebody else, or by a mistake of ours: the client is not
/// to build on it.
fn leave(view: &RunView) -> Result<String, ApiError> {
    let value = encode(view).map_err(|invalid| ApiError::Internal(format!("egress: {invalid}")))?;
    Ok(serde_json::to_string(&value)?)
}

#[cfg(test)]
mod tests {
    use kodo_contract::{ArtifactRef, RunStatus};

    use super::*;

    #[test]
    fn a_view_leaves_with_its_keys_in_the_order_of_the_contract() {
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
        assert_eq!(leave(&view).unwrap(), expected);
    }

    #[test]
    fn a_view_that_does_not_pass_the_gate_stays_inside() {
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
        let error = leave(&view).unwrap_err();
        assert!(
            matches!(&error, ApiError::Internal(cause) if cause.contains("egress")),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "internal error");
    }
}
