//! `GET /runs/:id/artifacts`: what there is to fetch of a run.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{ArtifactEntry, ArtifactList, ContentHash};
use kodo_store::ArtifactRow;
use kodo_store::content::content_of;

use crate::api::egress;
use crate::error::ApiError;
use crate::extract::params::{Id, RunKey};
use crate::extract::service::Migrated;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/runs/{id}/artifacts", Access::Token, handler).answers(
        StatusCode::OK,
        "the artifacts of the run, by step and index",
    )
}

async fn handler(Migrated(app): Migrated, Id(key): Id<RunKey>) -> Result<Response, ApiError> {
    let run_id = key.run(&app).await?;
    let rows = app.in_time(app.store().artifacts_of(&run_id)).await?;
    let rows = rows.ok_or(ApiError::RunNotFound)?;
    let artifacts = rows.into_iter().map(entry).collect::<Result<_, _>>()?;
    let list = ArtifactList {
        run_id: run_id.clone(),
        artifacts,
    };
    egress::answer(&list, run_id)
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
