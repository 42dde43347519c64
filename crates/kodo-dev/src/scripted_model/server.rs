//! The server.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, http};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::scripted_model::answer::Body;
use crate::scripted_model::{Form, Reply, Script};

/// The one path that is answered.
const PATH: &str = "/v1/chat/completions";

/// A running server. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ScriptedModel {
    port: u16,
    stage: Arc<Stage>,
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

#[derive(Debug)]
struct Stage {
    script: Script,
    /// The forms that are taken; any other one is answered with 400.
    forms: Mutex<Vec<Form>>,
    /// What is answered before the script is asked, in this order.
    queue: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    abandoned: AtomicUsize,
}

impl ScriptedModel {
    /// Listens on loopback; port 0 lets the system choose.
    ///
    /// # Errors
    /// If the port cannot be listened on.
    pub async fn start(port: u16, script: Script) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = listener.local_addr()?.port();
        let stage = Arc::new(Stage {
            script,
            forms: Mutex::new(vec![Form::JsonSchema, Form::ToolCall, Form::Text]),
            queue: Mutex::default(),
            seen: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&stage)));
        Ok(Self {
            port,
            stage,
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

    /// Takes requests of these forms alone; every other one is answered with 400.
    pub fn take_only(&self, forms: &[Form]) {
        *lock(&self.stage.forms) = forms.to_vec();
    }

    /// Answers the next request that nothing was said about yet with this.
    pub fn next(&self, reply: Reply) {
        lock(&self.stage.queue).push_back(reply);
    }

    /// The requests that came, in their order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.stage.seen).clone()
    }

    /// How many answers were given up by the client while they were waited for.
    pub fn abandoned(&self) -> usize {
        self.stage.abandoned.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, stage: Arc<Stage>) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let stage = Arc::clone(&stage);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&stage)));
            // A connection that breaks is the client's business, or the script's.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Counts an answer that is dropped before it is there.
struct Waiting<'a>(&'a Stage);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

async fn answer(request: Request<Incoming>, stage: Arc<Stage>) -> http::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let body = serde_json::from_slice::<Value>(&body.unwrap_or_default());
    let request = body.as_ref().unwrap_or(&Value::Null);
    let reply = if head.method != hyper::Method::POST || head.uri.path() != PATH {
        Reply::error(404, &format!("only POST {PATH} is answered"))
    } else if body.is_err() {
        Reply::error(400, "the body is no JSON")
    } else {
        lock(&stage.seen).push(Seen {
            headers: head.headers,
            body: request.clone(),
        });
        stage.reply(request)
    };
    let waiting = Waiting(&stage);
    let answer = reply.answer(request).await;
    std::mem::forget(waiting);
    answer
}

impl Stage {
    fn reply(&self, request: &Value) -> Reply {
        if !lock(&self.forms).contains(&Form::of(request)) {
            return Reply::error(400, "this form of answer is not supported");
        }
        let queued = lock(&self.queue).pop_front();
        let scripted = || self.script.answer(request).cloned().map(Reply::Json);
        queued
            .or_else(scripted)
            .unwrap_or_else(|| Reply::error(404, "the script has no answer for this goal"))
    }
}
