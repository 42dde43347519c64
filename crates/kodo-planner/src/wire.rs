//! One request to a provider and its answer, over HTTP.
//!
//! The key goes to the endpoint that the operator named and nowhere else: the client follows no redirect and keeps no
//! cookie.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt, TryStreamExt, iter, try_unfold};
use kodo_contract::ErrorCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response};
use serde_json::Value;

use crate::completion::{Completion, incomplete, invalid};
use crate::failure::Failure;
use crate::http_client::{cause, client, disagrees_on_tls};
use crate::refusal::Refusal;
use crate::sanitize::sanitized;
use crate::unanswered::Unanswered;
use crate::{Endpoint, Secret, stream};

/// The most bytes of an answer that are read. A plan is a fraction of that.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The most bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The client of one endpoint.
#[derive(Debug)]
pub(crate) struct Wire {
    client: Client,
    endpoint: Endpoint,
    secret: Option<Secret>,
}

impl Wire {
    pub(crate) fn new(endpoint: Endpoint, secret: Option<Secret>) -> Self {
        Self {
            client: client(endpoint.url(), |builder| builder),
            endpoint,
            secret,
        }
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Sends one request and reads its answer. Dropping the future closes the connection, so that the provider stops
    /// working on it.
    pub(crate) async fn ask(
        &self,
        body: &Value,
        idempotency_key: &str,
    ) -> Result<Completion, Unanswered> {
        let response = self.open(body, idempotency_key).await?;
        match media_type(response.headers()).as_deref() {
            Some("text/event-stream") => {
                let mut pieces = pin!(pieces(response).peekable());
                match pieces.as_mut().peek().await {
                    // A server that streams nothing, and says that it does.
                    Some(Ok(first)) if first.trim_ascii_start().starts_with(b"{") => {
                        let bytes = whole(pieces).await?;
                        Completion::read(&bytes, self.secret())
                    }
                    _ => stream::read(pieces, self.secret()).await,
                }
            }
            // Some servers send no content type, or that of any text.
            None | Some("text/plain" | "application/octet-stream") => {
                let bytes = collect(response, MAX_ANSWER_BYTES).await?;
                match is_json(&bytes) {
                    true => Completion::read(&bytes, self.secret()),
                    false => {
                        let pieces = iter([Ok(Bytes::from(bytes))]);
                        stream::read(pieces, self.secret()).await
                    }
                }
            }
            Some(json) if json.ends_with("json") => {
                let bytes = collect(response, MAX_ANSWER_BYTES).await?;
                Completion::read(&bytes, self.secret())
            }
            Some(other) => {
                Err(wrong_type(other, "JSON or a stream of events", self.secret()).into())
            }
        }
    }

    /// Sends one request. The body of a success is not read yet.
    pub(crate) async fn open(
        &self,
        body: &Value,
        idempotency_key: &str,
    ) -> Result<Response, Unanswered> {
        let mut request = self
            .client
            .post(self.endpoint.url().clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("idempotency-key", idempotency_key)
            .body(body.to_string());
        if let Some(secret) = &self.secret {
            let value = HeaderValue::try_from(format!("Bearer {}", secret.expose()));
            let mut value = value.map_err(|_| {
                Failure::new(
                    ErrorCode::PlannerUnauthorized,
                    "the key in OC_API_KEY or OC_API_KEY_FILE has characters that a header cannot carry",
                )
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // Without a body, the status still says enough.
        let body = collect(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        Err(Refusal::read(status, &headers, &body, self.secret()).into())
    }
}

/// The failure of a request that got no answer. Whatever broke the connection may be over a moment later, except what the
/// two sides do not agree on.
fn unreachable(error: &reqwest::Error) -> Failure {
    let failure = Failure::new(
        ErrorCode::PlannerUnreachable,
        format!(
            "the provider cannot be reached: {}; OC_BASE_URL says where it is",
            cause(error)
        ),
    );
    match error.is_builder() || disagrees_on_tls(error) {
        true => failure,
        false => failure.may_pass_after(Duration::ZERO),
    }
}

/// Whether a body is JSON rather than a stream of events, by how it begins.
fn is_json(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let fields: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
    let text = text.trim_ascii_start();
    !fields.iter().any(|field| text.starts_with(field))
}

/// The failure of an answer with another media type than one that is `wanted`.
pub(crate) fn wrong_type(found: &str, wanted: &str, secret: Option<&Secret>) -> Failure {
    invalid(format!(
        "the provider answered with content type {}, not with {wanted}: see whether OC_BASE_URL is the address of its \
         OpenAI-compatible API",
        sanitized(found, secret)
    ))
}

/// The media type of a body, in lower case and without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let media_type = text.split(';').next().unwrap_or_default();
    Some(media_type.trim().to_ascii_lowercase())
}

/// The whole body, if it is not longer than `limit`.
async fn collect(response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
    whole(limited(response, limit)).await
}

async fn whole(pieces: impl Stream<Item = Result<Bytes, Failure>>) -> Result<Vec<u8>, Failure> {
    let append = |mut whole: Vec<u8>, bytes: Bytes| async move {
        whole.extend_from_slice(&bytes);
        Ok(whole)
    };
    pieces.try_fold(Vec::new(), append).await
}

/// The pieces of an answer as they come; an error if it is longer than an answer may be.
pub(crate) fn pieces(response: Response) -> impl Stream<Item = Result<Bytes, Failure>> {
    limited(response, MAX_ANSWER_BYTES)
}

fn limited(response: Response, limit: usize) -> impl Stream<Item = Result<Bytes, Failure>> {
    try_unfold((response, limit), async |(mut response, left)| {
        let piece = response.chunk().await.map_err(|error| {
            incomplete(&format!(
                "the connection broke in the middle of the answer ({})",
                cause(&error)
            ))
        })?;
        let Some(piece) = piece else {
            return Ok(None);
        };
        match left.checked_sub(piece.len()) {
            Some(left) => Ok(Some((piece, (response, left)))),
            None => Err(Failure::new(
                ErrorCode::PlannerAnswerTooLarge,
                format!(
                    "the provider's answer is longer than {MAX_ANSWER_BYTES} bytes, and was read no further"
                ),
            )),
        }
    })
}
