//! HTTP for `object_store`, by reqwest as configured here: ring, the usual proxy variables, HTTP/1, no redirects.
//!
//! `object_store` has a reqwest of its own behind a feature, which would bring a second cryptography and HTTP/2.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Request, Response};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use super::refused::unless_refused;

/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes the client of one store.
#[derive(Debug)]
pub(crate) struct Connector {
    /// Whether the store is on this machine's loopback, which is never asked through a proxy.
    pub(crate) on_loopback: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls())
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT);
        if self.on_loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build();
        let client = client.map_err(|source| object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        })?;
        Ok(HttpClient::new(Wire(client)))
    }
}

#[derive(Debug)]
struct Wire(Client);

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (method, address) = (request.method().clone(), request.uri().to_string());
        let failed = |error: reqwest::Error| HttpError::new(kind(&error), error.without_url());
        let request = Request::try_from(request.map(Body::wrap)).map_err(failed)?;
        let response = self.0.execute(request).await.map_err(failed)?;
        let (head, body) = http_response(response).into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        let answer = HttpResponse::from_parts(head, HttpResponseBody::new(body));
        unless_refused(&method, &address, answer).await
    }
}

fn http_response(response: Response) -> hyper::Response<Body> {
    response.into()
}

/// Whether trying again is safe and can help.
fn kind(error: &reqwest::Error) -> HttpErrorKind {
    if error.is_connect() {
        return HttpErrorKind::Connect;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            if error.is_closed() || error.is_incomplete_message() || error.is_canceled() {
                return HttpErrorKind::Request;
            }
            if error.is_timeout() {
                return HttpErrorKind::Timeout;
            }
        }
        if error.is::<std::io::Error>() {
            return HttpErrorKind::Interrupted;
        }
        cause = error.source();
    }
    HttpErrorKind::Unknown
}

/// TLS that trusts the machine's certificate authorities, or those in `SSL_CERT_FILE`. If there are none, as in a small
/// container, it trusts Mozilla's.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    #[expect(
        clippy::expect_used,
        reason = "ring supports the default protocol versions"
    )]
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
