//! One request to a provider and its answer, over HTTP.
//!
//! The client follows no redirect, asks no proxy, keeps no cookie and sends the key nowhere but to the endpoint that
//! the operator named.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kodo_contract::parse_json;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::completion::Completion;
use crate::failure::{Failure, FailureCode};
use crate::retry::retry_after;
use crate::sse::Events;
use crate::told::told;
use crate::{Endpoint, Secret};

/// How much of an answer is read. A plan is a fraction of that; what is longer is no plan.
pub(crate) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// How much of the body of an error is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// How long connecting may take. The deadline may well be minutes; a host that does not answer is known sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What ends a stream of chunks.
pub(crate) const DONE: &[u8] = b"[DONE]";

/// The connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Wire {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
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
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls(endpoint.uri().scheme_str() == Some("http")));
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self {
            client,
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
            Some("text/event-stream") => self.stream(response.into_body()).await,
            // Some servers leave it out; what they sent is then JSON or it is not.
            Some("application/json") | None => {
                let bytes = collect(response.into_body(), MAX_ANSWER_BYTES).await?;
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
    ) -> Result<Result<Response<Incoming>, Refusal>, Failure> {
        let request = self.request(body, idempotency_key)?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| unreachable("the provider cannot be reached", &error))?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        Ok(Err(self.refusal(response).await))
    }

    fn request(
        &self,
        body: &Value,
        idempotency_key: &str,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut builder = Request::post(self.endpoint.uri())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header(USER_AGENT, concat!("kodo/", env!("CARGO_PKG_VERSION")))
            .header("idempotency-key", idempotency_key);
        if let Some(secret) = &self.secret {
            let value = format!("Bearer {}", secret.expose());
            let mut value = HeaderValue::try_from(value).map_err(|_| {
                Failure::new(
                    FailureCode::PlannerUnauthorized,
                    "the key in OC_API_KEY or OC_API_KEY_FILE has characters that a header cannot carry",
                )
            })?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        builder
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| {
                Failure::new(
                    FailureCode::PlannerRejected,
                    format!("the request cannot be written: {error}"),
                )
            })
    }

    /// Reads a stream of chunks up to its end mark.
    async fn stream(&self, mut body: Incoming) -> Result<Completion, Failure> {
        let mut completion = Completion::default();
        let mut events = Events::default();
        let mut read = 0;
        let mut done = false;
        while !done && let Some(bytes) = next(&mut body).await? {
            read += bytes.len();
            if read > MAX_ANSWER_BYTES {
                return Err(too_large());
            }
            events.push(&bytes, |data| {
                done = done || data == DONE;
                if done {
                    return Ok(());
                }
                completion.add(data, self.secret())
            })?;
        }
        // Some servers end a stream without the mark; one that said why it ends was not cut.
        if !done && completion.finish_reason.is_none() {
            return Err(incomplete("the stream ended before the answer did"));
        }
        Ok(completion)
    }

    async fn refusal(&self, response: Response<Incoming>) -> Refusal {
        let (head, body) = response.into_parts();
        // A body that cannot be read takes nothing from what the status says.
        let bytes = collect(body, MAX_ERROR_BYTES).await.unwrap_or_default();
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
            status: head.status,
            retry_after: head
                .headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value, head.headers.get(DATE))),
            code: text("code"),
            parameter: text("param"),
            message: told(&message, self.secret()),
        }
    }
}

/// How servers prove who they are: by the machine's own certificate authorities, or those in `SSL_CERT_FILE`, so that a
/// provider inside of a company is trusted as everything else there is; a container without any gets Mozilla's.
pub(crate) fn tls(in_the_clear: bool) -> ClientConfig {
    #[expect(
        clippy::expect_used,
        reason = "ring supports the default protocol versions"
    )]
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions");
    let builder = if in_the_clear {
        // Reading the authorities takes a while, and nobody will ask for them.
        builder.with_root_certificates(RootCertStore::empty())
    } else {
        match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            Err(_) => builder.with_webpki_roots(),
        }
    };
    builder.with_no_client_auth()
}

/// The media type, in lower case and without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let media_type = text.split(';').next().unwrap_or_default();
    Some(media_type.trim().to_ascii_lowercase())
}

/// The whole body, if it is not longer than `limit`.
async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut whole = Vec::new();
    while let Some(bytes) = next(&mut body).await? {
        if whole.len() + bytes.len() > limit {
            return Err(too_large());
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// The next piece of the body.
pub(crate) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            incomplete(&format!(
                "the connection broke in the middle of the answer ({})",
                cause(&error)
            ))
        })?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

pub(crate) fn too_large() -> Failure {
    Failure::new(
        FailureCode::PlannerAnswerTooLarge,
        format!(
            "the provider's answer is longer than {MAX_ANSWER_BYTES} bytes, and was read no further"
        ),
    )
}

pub(crate) fn incomplete(what: &str) -> Failure {
    Failure::new(FailureCode::PlannerAnswerIncomplete, what)
}

fn unreachable(what: &str, error: &(dyn StdError + 'static)) -> Failure {
    Failure::new(
        FailureCode::PlannerUnreachable,
        format!("{what}: {}; OC_BASE_URL says where it is", cause(error)),
    )
}

/// The innermost cause: what the system or the protocol said, without the addresses that outer layers add.
pub(crate) fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    told(&innermost.to_string(), None)
}
