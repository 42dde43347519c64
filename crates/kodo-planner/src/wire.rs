//! One request to a provider and its answer, over HTTP.
//!
//! The key goes to the endpoint that the operator named and nowhere else: the client follows no redirect and keeps no
//! cookie.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, TryStreamExt, try_unfold};
use kodo_contract::parse_json;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use crate::completion::Completion;
use crate::failure::{Failure, FailureCode};
use crate::http_client::{cause, client};
use crate::retry::retry_after;
use crate::told::told;
use crate::{Endpoint, Secret, stream};

/// How much of an answer is read. A plan is a fraction of that; what is longer is no plan.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// How much of the body of an error is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Wire {
    client: Client,
    endpoint: Endpoint,
    secret: Option<Secret>,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// An answer.
    Completion(Completion),
    /// A status that is no success.
    Refused(Refusal),
}

/// A status that is no success, and what the provider says about it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// How long the provider asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// The provider's code for it.
    pub(crate) code: String,
    /// The parameter that it does not like.
    pub(crate) parameter: String,
    /// What it says, fit to be shown.
    pub(crate) message: String,
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

    /// Sends one request. Dropping the future closes the connection, and with it what the provider does for us.
    pub(crate) async fn ask(
        &self,
        body: &Value,
        idempotency_key: &str,
    ) -> Result<Outcome, Failure> {
        let response = match self.open(body, idempotency_key).await? {
            Ok(response) => response,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        match media_type(response.headers()).as_deref() {
            Some("text/event-stream") => stream::read(pieces(response), self.secret()).await,
            // Some servers leave it out; what they sent is then JSON or it is not.
            Some("application/json") | None => {
                let bytes = collect(response, MAX_ANSWER_BYTES).await?;
                Completion::read(&bytes, self.secret())
            }
            Some(other) => Err(Failure::new(
                FailureCode::PlannerAnswerInvalid,
                format!(
                    "the provider answered with content type {}, not with JSON or a stream of events: see whether \
                     OC_BASE_URL is the address of its OpenAI-compatible API",
                    told(other, self.secret())
                ),
            )),
        }
        .map(Outcome::Completion)
    }

    /// Sends one request; a success is handed out unread.
    pub(crate) async fn open(
        &self,
        body: &Value,
        idempotency_key: &str,
    ) -> Result<Result<Response, Refusal>, Failure> {
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
                    FailureCode::PlannerUnauthorized,
                    "the key in OC_API_KEY or OC_API_KEY_FILE has characters that a header cannot carry",
                )
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await.map_err(|error| {
            let cause = cause(&error);
            Failure::new(
                FailureCode::PlannerUnreachable,
                format!("the provider cannot be reached: {cause}; OC_BASE_URL says where it is"),
            )
        })?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        Ok(Err(self.refusal(response).await))
    }

    async fn refusal(&self, response: Response) -> Refusal {
        let (status, headers) = (response.status(), response.headers());
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value, headers.get(DATE)));
        // A body that cannot be read takes nothing from what the status says.
        let bytes = collect(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let error = match parse_json(&bytes) {
            Ok(mut value) => value["error"].take(),
            Err(_) => Value::Null,
        };
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        let message = match error["message"].as_str().or(error.as_str()) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&bytes).into_owned(),
        };
        Refusal {
            status,
            retry_after,
            code: text("code"),
            parameter: text("param"),
            message: told(&message, self.secret()),
        }
    }
}

/// The media type, in lower case and without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let media_type = text.split(';').next().unwrap_or_default();
    Some(media_type.trim().to_ascii_lowercase())
}

/// The whole body, if it is not longer than `limit`.
async fn collect(response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
    let append = |mut whole: Vec<u8>, bytes: Bytes| async move {
        whole.extend_from_slice(&bytes);
        Ok(whole)
    };
    limited(response, limit).try_fold(Vec::new(), append).await
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
                FailureCode::PlannerAnswerTooLarge,
                format!(
                    "the provider's answer is longer than {MAX_ANSWER_BYTES} bytes, and was read no further"
                ),
            )),
        }
    })
}

pub(crate) fn incomplete(what: &str) -> Failure {
    Failure::new(FailureCode::PlannerAnswerIncomplete, what)
}
