//! Recognises answers of a bucket that refuse a request for good, such as a wrong key or a bucket that does not exist.
//!
//! `object_store` reports the status of only some failed requests, that of a listing only inside a text, and never whether
//! a 404 is about the object or the bucket. So the answer itself is examined, and a refusal becomes an error of its own.

use http_body_util::{BodyExt, Limited};
use hyper::{Method, StatusCode};
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};

/// Most bytes of an error that are read; stores send far less.
const MOST: usize = 64 * 1024;

/// The refusal of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said} ({request})")]
pub(crate) struct Refused {
    /// Status, code and message.
    said: String,
    /// What was asked for: method and address.
    request: String,
    /// Whether there is no room, or no more is allowed to be stored.
    pub(crate) is_full: bool,
}

/// What stores call that they have no room: Ceph, MinIO (twice).
const FULL: [&str; 3] = [
    "QuotaExceeded",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
];

impl Refused {
    pub(crate) fn new(said: String, request: String) -> Self {
        Self {
            said,
            request,
            is_full: false,
        }
    }
}

/// Returns the answer, or an error if it refuses the request.
pub(crate) async fn unless_refused(
    method: &Method,
    address: &str,
    answer: HttpResponse,
) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    let looked_at = matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::INSUFFICIENT_STORAGE
    );
    if !looked_at {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let body = match Limited::new(body, MOST).collect().await {
        Ok(body) => body.to_bytes(),
        // For these two only the body says whether it is a refusal.
        Err(error) if matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => {
            return Err(HttpError::new_boxed(HttpErrorKind::Interrupted, error));
        }
        Err(_) => Default::default(),
    };
    let text = String::from_utf8_lossy(&body);
    let code = element(&text, "Code");
    let is_refusal = match status {
        // Any other 404 is about the object.
        StatusCode::NOT_FOUND => code == Some("NoSuchBucket"),
        // The one bad request that can be repeated: its body arrived too slowly.
        StatusCode::BAD_REQUEST => code != Some("RequestTimeout"),
        _ => true,
    };
    if !is_refusal {
        return Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body)));
    }
    let mut said = status.to_string();
    for more in [code, element(&text, "Message")].into_iter().flatten() {
        said = format!("{said}: {more}");
    }
    let is_full =
        status == StatusCode::INSUFFICIENT_STORAGE || code.is_some_and(|it| FULL.contains(&it));
    let refused = Refused {
        is_full,
        said,
        request: format!("{method} {address}"),
    };
    // Errors of kind Unknown are not retried.
    Err(HttpError::new(HttpErrorKind::Unknown, refused))
}

/// The text of an XML element without attributes and children. An error has each of its elements once.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content).filter(|content| !content.is_empty())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    async fn looked_at(status: u16, body: &str) -> Result<String, String> {
        let mut answer = HttpResponse::new(HttpResponseBody::from(body.to_owned()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        match unless_refused(&Method::GET, "http://store/bucket/key", answer).await {
            Ok(answer) => {
                let body = answer.into_body().bytes().await.unwrap();
                Ok(String::from_utf8(body.to_vec()).unwrap())
            }
            Err(error) => Err(error.source().unwrap().to_string()),
        }
    }

    #[tokio::test]
    async fn a_refusal_says_what_the_store_said() {
        let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>not you</Message></Error>";
        assert_eq!(
            looked_at(403, body).await,
            Err("403 Forbidden: AccessDenied: not you (GET http://store/bucket/key)".to_owned())
        );
        // As the answer to a HEAD, which has no body.
        assert_eq!(
            looked_at(403, "").await,
            Err("403 Forbidden (GET http://store/bucket/key)".to_owned())
        );
        let endless = "x".repeat(MOST + 1);
        assert!(
            looked_at(401, &endless)
                .await
                .unwrap_err()
                .starts_with("401")
        );
        // Of what is not there, nothing was said that could be read.
        assert_eq!(
            looked_at(404, &endless).await,
            Err("length limit exceeded".to_owned())
        );
    }

    #[tokio::test]
    async fn a_store_without_room_says_so_in_its_own_words() {
        for (status, body, is_full) in [
            (507, "", true),
            (507, "<Error><Code>XMinioStorageFull</Code></Error>", true),
            (403, "<Error><Code>QuotaExceeded</Code></Error>", true),
            (403, "<Error><Code>AccessDenied</Code></Error>", false),
        ] {
            let mut answer = HttpResponse::new(HttpResponseBody::from(body.to_owned()));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            let error = unless_refused(&Method::PUT, "http://store/key", answer).await;
            let error = error.unwrap_err();
            let refused = error.source().unwrap().downcast_ref::<Refused>().unwrap();
            assert_eq!(refused.is_full, is_full, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn what_is_about_the_object_or_is_transient_is_handed_on_whole() {
        for (status, body) in [
            (200, "<Code>AccessDenied</Code>"),
            (404, "<Error><Code>NoSuchKey</Code></Error>"),
            (404, ""),
            (400, "<Error><Code>RequestTimeout</Code></Error>"),
            (503, "<Error><Code>SlowDown</Code></Error>"),
        ] {
            assert_eq!(looked_at(status, body).await, Ok(body.to_owned()));
        }
        assert!(
            looked_at(404, "<Error><Code>NoSuchBucket</Code></Error>")
                .await
                .is_err()
        );
        assert!(
            looked_at(400, "<Error><Code>ExpiredToken</Code></Error>")
                .await
                .is_err()
        );
    }
}
