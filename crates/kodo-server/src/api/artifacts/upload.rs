//! `PUT /artifacts`: stores content, for runs to begin with.

use std::slice;

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::ContentHash;
use serde::Serialize;

use crate::app::App;
use crate::error::ApiError;
use crate::extract::service::Accepting;
use crate::extract::upload::Upload;
use crate::http::answer;
use crate::route::{Access, Operation};

/// How often content is stored that a garbage collection removes at once.
const ATTEMPTS: usize = 3;

pub(crate) fn operation() -> Operation {
    Operation::put("/artifacts", Access::Token, handler)
        .answers(StatusCode::CREATED, "the content is stored")
        .answers(StatusCode::OK, "the same content was uploaded before")
}

#[derive(Serialize)]
struct Uploaded {
    sha256: ContentHash,
    size: u64,
}

async fn handler(Accepting(app): Accepting, upload: Upload) -> Result<Response, ApiError> {
    // Goes on if the client goes away: a store may keep what was half sent to it.
    let storing = tokio::spawn(store(app, upload));
    storing
        .await
        .unwrap_or_else(|error| Err(ApiError::Internal(error.to_string())))
}

async fn store(app: App, upload: Upload) -> Result<Response, ApiError> {
    let Upload {
        file, size, hash, ..
    } = &upload;
    let size = *size;
    let artifacts = app.artifacts()?;
    let hashes = slice::from_ref(hash);
    for _ in 0..ATTEMPTS {
        let watched = app.in_time(app.store().watch_content(hashes)).await?;
        // Without the lock: it occupies a connection, and the artifact store may be slow.
        artifacts.put_file(file.clone(), 0..size, hash).await?;
        let held = app.in_time(app.store().hold_content(hashes)).await?;
        // Content under the lock stays.
        if held.is_untouched_since(watched) || is_there(&app, hash, size).await? {
            let is_new = app.in_time(held.record_upload(hash, size)).await?;
            let status = match is_new {
                true => StatusCode::CREATED,
                false => StatusCode::OK,
            };
            let sha256 = hash.clone();
            let uploaded = Uploaded { sha256, size };
            return Ok(answer::json(status, serde_json::to_string(&uploaded)?));
        }
    }
    Err(ApiError::Unavailable(format!(
        "{hash} was removed {ATTEMPTS} times before it could be recorded"
    )))
}

async fn is_there(app: &App, hash: &ContentHash, size: u64) -> Result<bool, ApiError> {
    let there = app.in_time(app.artifacts()?.head(hash)).await?;
    Ok(there.is_some_and(|info| info.size == size))
}
