//! `GET /marks`: how often each effect of a crash demo is there.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::api::params;
use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::{self, Subject};

pub(crate) async fn handler(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    app.open_for_reads()?;
    let id = params::workflow_id(request.uri().query())?;
    let marks = app
        .in_time(async { Ok(app.store().marks(id.as_str()).await?) })
        .await?;
    let subject = Subject {
        workflow: Some(id),
        ..Subject::default()
    };
    let answer = serde_json::to_string(&marks)?;
    Ok(answer::json_about(StatusCode::OK, answer, subject))
}
