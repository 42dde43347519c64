//! Shared by the unit tests of several modules.

use axum::response::Response;
use http_body_util::BodyExt;

/// Status and body of an answer.
pub(crate) async fn read(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}
