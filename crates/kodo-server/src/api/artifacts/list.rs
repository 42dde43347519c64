//! `GET /runs/:id/artifacts`: what there is to fetch of a run.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{ArtifactEntry, ArtifactList, ContentHash, RunId, encode};
use kodo_store::ArtifactRow;
use kodo_store::content::content_of;

use crate::api::params;
use crate::app::App;
use crate::error::ApiError;
use crate::http::answer::{self, Subject};

pub(crate) async fn handler(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    app.open_for_reads()?;
    let run_id =
        params::path_id(request.uri().path(), RunId::parse)?.ok_or(ApiError::RunNotFound)?;
    let rows = app
        .in_time(async { Ok(app.store().artifacts_of(&run_id).await?) })
        .await?
        .ok_or(ApiError::RunNotFound)?;
    let artifacts = rows.into_iter().map(entry).collect::<Result<_, _>>()?;
    let list = ArtifactList {
        run_id: run_id.clone(),
        artifacts,
    };
    let value =
        encode(&list).map_err(|invalid| ApiError::Internal(format!("egress: {invalid}")))?;
    let subject = Subject {
        run: Some(run_id),
        ..Subject::default()
    };
    let text = serde_json::to_string(&value)?;
    Ok(answer::json_about(StatusCode::OK, text, subject))
}

fn entry(row: ArtifactRow) -> Result<ArtifactEntry, ApiError> {
    let unreadable = || ApiError::Internal(format!("the row of {} is unreadable", row.uri));
    let (media_type, size, sha256, name) = match &row.stored {
        Some((size, media_type)) => {
            let hash = ContentHash::parse(&row.sha256).ok_or_else(unreadable)?;
            let name = row.inline["name"].as_str().map(str::to_owned);
            (media_type.clone(), *size, hash, name)
        }
        None => {
            let content = content_of(&row.kind, &row.inline);
            let size = content.bytes.len() as u64;
            (
                content.media_type.to_owned(),
                size,
                content.sha256,
                content.name,
            )
        }
    };
    Ok(ArtifactEntry {
        index: u32::try_from(row.index).map_err(|_| unreadable())?,
        stored: row.stored.is_some(),
        step_id: row.step_id.into(),
        kind: row.kind,
        name,
        media_type,
        size,
        sha256,
        uri: row.uri,
    })
}
