//! How a request reaches OpenCode's API: over a stream into the process that we started, or by its URL.

use std::sync::Arc;

use hyper::client::conn::http1::handshake;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use reqwest::{Body, Client, Method, Request, Response};

use crate::OpenCodeUrl;
use crate::http_client::{cause, client};

use super::launch::OpenCodeProcess;

/// How OpenCode is reached.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// A process that we started.
    Process(Arc<dyn OpenCodeProcess>),
    /// One that somebody else runs.
    Url(Client, OpenCodeUrl),
}

impl Link {
    pub(crate) fn to(url: &OpenCodeUrl) -> Self {
        // A kept connection that OpenCode is about to close would fail a plan; opening one costs little beside a plan.
        let client = client(url.url(), |builder| builder.pool_max_idle_per_host(0));
        Self::Url(client, url.clone())
    }

    /// A request for a path.
    pub(crate) fn request(&self, method: Method, path: &str) -> Result<Request, String> {
        let url = match self {
            Self::Process(_) => format!("http://127.0.0.1{path}"),
            Self::Url(_, base) => format!("{base}{path}"),
        };
        let url = url.parse().map_err(|error| format!("{error}"))?;
        Ok(Request::new(method, url))
    }

    /// Sends a request. Dropping the future closes the connection, but OpenCode goes on: see `Api::abort`.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, String> {
        match self {
            Self::Process(process) => through(&**process, request)
                .await
                .map_err(|error| error.to_string()),
            Self::Url(client, _) => {
                let response = client.execute(request).await;
                response.map_err(|error| cause(&error))
            }
        }
    }
}

/// Sends a request over a connection of the process's own.
async fn through(
    process: &dyn OpenCodeProcess,
    request: Request,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let path = request.url().path().parse()?;
    let mut request = hyper::Request::<Body>::try_from(request)?;
    *request.uri_mut() = path;
    let host = HeaderValue::from_static("127.0.0.1");
    request.headers_mut().insert(HOST, host);
    let (mut sender, connection) = handshake(TokioIo::new(process.connect().await?)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(response.map(Body::wrap).into())
}
