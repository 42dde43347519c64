//! `GET /runs/:id/workspace`: the workspace of a run, as a tar archive.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::TryStreamExt;
use kodo_engine::workspace_of;
use kodo_store::content::tarball;

use crate::error::ApiError;
use crate::extract::params::{Id, RunKey};
use crate::extract::service::Migrated;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/runs/{id}/workspace", Access::Token, handler)
        .answers(
            StatusCode::OK,
            "the workspace after the last step that is recorded, as a tar archive",
        )
        .refuses([
            ApiError::NoWorkspace,
            ApiError::WorkspaceConflict(String::new()),
            ApiError::ArtifactGone(String::new()),
            ApiError::ArtifactDamaged(String::new()),
        ])
}

async fn handler(Migrated(app): Migrated, Id(key): Id<RunKey>) -> Result<Response, ApiError> {
    let run = key.run(&app).await?;
    if !app.in_time(app.store().run_exists(&run)).await? {
        return Err(ApiError::RunNotFound);
    }
    let artifacts = Arc::clone(app.artifacts()?);
    let workspace = app
        .in_time(workspace_of(app.store(), &*artifacts, &run))
        .await?;
    let snapshot = workspace.ok_or(ApiError::NoWorkspace)?;
    let id = run.clone();
    // The status is sent before the body: if reading fails from here on, the body ends before its last chunk. For HEAD it is
    // dropped before anything of it is read.
    let body = Body::from_stream(tarball(artifacts, snapshot).inspect_err(move |error| {
        tracing::error!(%error, run.id = %id, "a workspace was not sent to its end");
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/x-tar"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // It is another one after the next step.
        (header::CACHE_CONTROL, "private, no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // An id has letters, digits and `_` alone.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{run}.tar\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}
