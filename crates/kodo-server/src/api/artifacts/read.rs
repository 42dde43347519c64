//! `GET /artifacts/:sha256`: the bytes of an artifact.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::TryStreamExt;
use kodo_contract::{ContentHash, canonical_json};
use kodo_store::content::content_of;
use kodo_store::{ArtifactRow, Found};

use crate::app::App;
use crate::error::ApiError;
use crate::extract::params::Id;
use crate::extract::service::Migrated;
use crate::http::range;
use crate::route::{Access, Operation};

pub(crate) fn operation() -> Operation {
    Operation::get("/artifacts/{sha256}", Access::Token, handler)
        .answers(StatusCode::OK, "the bytes")
        .answers(StatusCode::PARTIAL_CONTENT, "a range of the bytes")
        .answers(StatusCode::NOT_MODIFIED, "the client has the bytes already")
        .refuses([
            ApiError::ArtifactNotFound,
            ApiError::RangeNotSatisfiable(0),
            ApiError::ArtifactGone(String::new()),
            ApiError::ArtifactDamaged(String::new()),
        ])
}

/// The content of an artifact, and where its bytes are.
struct Content {
    hash: ContentHash,
    media_type: String,
    size: u64,
    /// `None` if the bytes are in the artifact store.
    inline: Option<Bytes>,
}

async fn handler(
    Migrated(app): Migrated,
    Id(hash): Id<ContentHash>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = app.in_time(app.store().artifact_by_hash(&hash)).await?;
    let found = found.ok_or(ApiError::ArtifactNotFound)?;
    let content = content(hash, found)?;
    let etag = format!("\"{}\"", content.hash);
    if range::is_known(&headers, &etag) {
        return Ok(headed(StatusCode::NOT_MODIFIED, &content, Body::empty()));
    }
    if method == Method::HEAD {
        if content.inline.is_none() {
            let head = app.artifacts()?.head(&content.hash);
            let there = app.in_time(head).await?;
            there.ok_or(kodo_store::content::ArtifactError::Missing)?;
        }
        return Ok(headed(StatusCode::OK, &content, Body::empty()));
    }
    match range::wanted(&headers, &etag, content.size)? {
        None => {
            let body = body(&app, &content, None).await?;
            Ok(headed(StatusCode::OK, &content, body))
        }
        Some(range) => {
            let body = body(&app, &content, Some(range.clone())).await?;
            let mut response = headed(StatusCode::PARTIAL_CONTENT, &content, body);
            let Range { start, end } = range;
            let headers = response.headers_mut();
            set(headers, header::CONTENT_LENGTH, (end - start).to_string());
            let text = format!("bytes {start}-{}/{}", end - 1, content.size);
            set(headers, header::CONTENT_RANGE, text);
            Ok(response)
        }
    }
}

fn content(hash: ContentHash, found: Found) -> Result<Content, ApiError> {
    let (bytes, media_type) = match found {
        Found::Row(ArtifactRow {
            stored: Some((size, media_type)),
            ..
        }) => {
            return Ok(Content {
                hash,
                media_type,
                size,
                inline: None,
            });
        }
        Found::Upload(size) => {
            return Ok(Content {
                hash,
                media_type: "application/octet-stream".to_owned(),
                size,
                inline: None,
            });
        }
        // Found by the hash of the row. That is the hash of its canonical JSON, for every kind.
        Found::Row(row) => (canonical_json(&row.inline).into_bytes(), "application/json"),
        Found::File(row) => {
            let file = content_of(&row.kind, &row.inline);
            (file.bytes, file.media_type)
        }
    };
    if ContentHash::of(&bytes) != hash {
        let cause =
            format!("the content of a row does not have the hash {hash} that the row states");
        return Err(ApiError::ArtifactDamaged(cause));
    }
    Ok(Content {
        hash,
        media_type: media_type.to_owned(),
        size: bytes.len() as u64,
        inline: Some(bytes.into()),
    })
}

async fn body(app: &App, content: &Content, range: Option<Range<u64>>) -> Result<Body, ApiError> {
    if let Some(bytes) = &content.inline {
        let Some(range) = range else {
            return Ok(Body::from(bytes.clone()));
        };
        let place = |at: u64| usize::try_from(at).unwrap_or(bytes.len());
        return Ok(Body::from(
            bytes.slice(place(range.start)..place(range.end)),
        ));
    }
    let store = app.artifacts()?.as_ref();
    let hash = content.hash.clone();
    let reading = kodo_store::content::read(store, &hash, content.size, range);
    let pieces = app.in_time(reading).await?;
    // The status is sent before the body: if reading fails from here on, the body ends before its length.
    Ok(Body::from_stream(pieces.inspect_err(move |error| {
        tracing::error!(%error, artifact.sha256 = %hash, "an artifact was not sent to its end");
    })))
}

/// An answer with the headers of this content. It was made by programs that are not trusted, so the headers keep a
/// browser from running it as a page of this origin.
fn headed(status: StatusCode, content: &Content, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCEPT_RANGES, "bytes"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
        (header::CONTENT_DISPOSITION, "attachment"),
        // The content never changes, but whether the client may have it is checked each time.
        (header::CACHE_CONTROL, "private, no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    set(headers, header::ETAG, format!("\"{}\"", content.hash));
    set(
        headers,
        HeaderName::from_static("repr-digest"),
        digest(&content.hash),
    );
    if status != StatusCode::NOT_MODIFIED {
        set(headers, header::CONTENT_TYPE, content.media_type.clone());
        set(headers, header::CONTENT_LENGTH, content.size.to_string());
    }
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // Only a media type that somebody wrote into the row can be invalid as a header.
    let value = HeaderValue::try_from(value);
    headers.insert(
        name,
        value.unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
}

/// The hash of the whole content, as RFC 9530 writes it.
fn digest(hash: &ContentHash) -> String {
    // A content hash is made of hexadecimal digits, so it always decodes.
    let bytes = hex::decode(hash.as_str()).unwrap_or_default();
    format!("sha-256=:{}:", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_written_as_the_standard_says() {
        // The hash of no bytes, as RFC 9530 has it in its examples of empty content.
        let empty = digest(&ContentHash::of(b""));
        assert_eq!(
            empty,
            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
        );
    }
}
