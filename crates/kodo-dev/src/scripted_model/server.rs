//! The server.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::{Body, Script, error};

/// The one path that is answered.
const PATH: &str = "/v1/chat/completions";

/// A running server. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ScriptedModel {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
}

impl ScriptedModel {
    /// Answers by script. Listens on loopback; port 0 lets the system choose.
    ///
    /// # Errors
    /// If the port cannot be listened on.
    pub async fn start(port: u16, script: Script) -> std::io::Result<Self> {
        Self::answering(port, move |body| std::future::ready(script.answer(&body))).await
    }

    /// Answers a request, by its body, with what `answer` returns. That is dropped if the client hangs up meanwhile.
    ///
    /// # Errors
    /// As [`ScriptedModel::start`].
    pub async fn answering<A>(
        port: u16,
        answer: impl Fn(Value) -> A + Clone + Send + Sync + 'static,
    ) -> std::io::Result<Self>
    where
        A: Future<Output = Response<Body>> + Send,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let all = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let _ = stream.set_nodelay(true);
                let (answer, seen) = (answer.clone(), Arc::clone(&all));
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                        async move {
                            Ok::<_, hyper::Error>(match read(request, &seen).await {
                                Ok(body) => answer(body).await,
                                Err(refusal) => refusal,
                            })
                        }
                    });
                    // A connection that breaks is the client's business, or the script's.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self {
            port,
            seen,
            serving,
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The base URL, as clients want it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The requests that came, in their order.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The body of a request, which is noted.
async fn read(
    request: Request<Incoming>,
    seen: &Mutex<Vec<Seen>>,
) -> Result<Value, Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    if head.method != Method::POST || head.uri.path() != PATH {
        let message = format!("only POST {PATH} is answered");
        return Err(error(StatusCode::NOT_FOUND, &message));
    }
    let body = serde_json::from_slice::<Value>(&body.unwrap_or_default());
    let body = body.map_err(|_| error(StatusCode::BAD_REQUEST, "the body is no JSON"))?;
    let headers = head.headers;
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Seen {
            headers,
            body: body.clone(),
        });
    Ok(body)
}
