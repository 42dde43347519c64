//! How a request gets to OpenCode: into the process that we started, or to a URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::endpoint::{EndpointError, base_of};
use crate::wire::tls;

use super::launch::OpenCodeProcess;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an OpenCode is that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCodeUrl(String);

impl OpenCodeUrl {
    /// Takes the URL of an `opencode serve`.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn parse(url: &str, allow_http: bool) -> Result<Self, EndpointError> {
        let (scheme, authority, path) = base_of(url, allow_http)?;
        Ok(Self(format!("{scheme}://{authority}{path}")))
    }
}

impl fmt::Display for OpenCodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The way there.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// Into a process of ours.
    Process(Arc<dyn OpenCodeProcess>),
    /// To somebody else's.
    Url(Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String),
}

impl Link {
    pub(crate) fn to(url: &OpenCodeUrl) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(url.0.starts_with("http:")));
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            // A connection that OpenCode is about to close would cost a plan; opening one costs nothing beside a plan.
            .pool_max_idle_per_host(0)
            .build(connector);
        Self::Url(client, url.0.clone())
    }

    /// The whole address of a path, as this way wants it.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, String> {
        match self {
            Self::Process(_) => path.parse(),
            Self::Url(_, base) => format!("{base}{path}").parse(),
        }
        .map_err(|error: hyper::http::uri::InvalidUri| error.to_string())
    }

    /// Sends a request. Dropping the future closes the connection, which ends nothing over there: see `abort`.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, String> {
        match self {
            Self::Process(process) => {
                let stream = process.connect().await.map_err(|it| it.to_string())?;
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .map_err(|it| it.to_string())?;
                tokio::spawn(connection);
                sender
                    .send_request(request)
                    .await
                    .map_err(|it| it.to_string())
            }
            Self::Url(client, _) => client
                .request(request)
                .await
                .map_err(|error| crate::wire::cause(&error)),
        }
    }
}
