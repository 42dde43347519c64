//! Something that behaves as OpenCode does as far as plans can see, in this process: what it is asked is written down,
//! and it can be told to behave otherwise. The real one is tested by `test:opencode`.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kodo_planner::{
    MODEL_PROXY_PORT, OpenCodeLauncher, OpenCodeProcess, Start, Stream, TESTED_VERSION,
};
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{Notify, mpsc};

/// What one was asked: method, path, and whether with its password.
pub type Asked = (String, String, bool);

/// How it behaves, and what it saw.
#[derive(Debug)]
pub struct Fake {
    pub version: Mutex<String>,
    /// What its agent may do, after the refusal of everything.
    pub rules: Mutex<Vec<Value>>,
    pub asked: Mutex<Vec<Asked>>,
    /// How many starts fail from now on.
    pub broken_starts: AtomicUsize,
    pub starts: AtomicUsize,
    /// How often it has the model asked for one answer.
    pub insists: AtomicUsize,
    /// Whether aborting has no effect, and no answer.
    pub deaf: AtomicBool,
    /// Ends the one that runs.
    pub dies: Notify,
    /// Everything that the newest was given: environment and files.
    pub given: Mutex<String>,
    /// A way to the model proxy of the newest, and its token.
    model_proxy: Mutex<Option<(mpsc::Sender<DuplexStream>, String)>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            version: Mutex::new(TESTED_VERSION.to_owned()),
            rules: Mutex::default(),
            asked: Mutex::default(),
            broken_starts: AtomicUsize::new(0),
            starts: AtomicUsize::new(0),
            insists: AtomicUsize::new(1),
            deaf: AtomicBool::new(false),
            dies: Notify::new(),
            given: Mutex::default(),
            model_proxy: Mutex::default(),
        })
    }

    /// The paths that were asked, with their methods.
    pub fn paths(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|(method, path, _)| format!("{method} {path}"))
            .collect()
    }

    pub fn token(&self) -> String {
        self.model_proxy.lock().unwrap().as_ref().unwrap().1.clone()
    }

    /// Sends a request to the model proxy; its status and what it says.
    pub async fn to_model_proxy(
        &self,
        path: &str,
        token: &str,
        session: Option<&str>,
    ) -> (u16, String) {
        let way = self.model_proxy.lock().unwrap().as_ref().unwrap().0.clone();
        let (ours, theirs) = duplex(1 << 16);
        way.send(theirs).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::post(path).header("authorization", format!("Bearer {token}"));
        if let Some(session) = session {
            request = request.header("x-session-id", session);
        }
        let tool =
            json!({"type": "function", "function": {"name": "StructuredOutput", "parameters": {}}});
        let body = json!({
            "model": "whatever", "messages": [{"role": "user", "content": "hi"}], "stream": true,
            "temperature": 0, "max_tokens": 1000, "tools": [tool], "tool_choice": "required",
        });
        let request = request
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let Ok(response) = sender.send_request(request).await else {
            return (0, String::new());
        };
        let status = response.status().as_u16();
        let text = response.into_body().collect().await;
        let text = text.map(|it| it.to_bytes().to_vec()).unwrap_or_default();
        (status, String::from_utf8(text).unwrap())
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, password: &str) -> Value {
        let authorized = request
            .headers()
            .get("authorization")
            .is_some_and(|it| it == password);
        let (method, path) = (
            request.method().to_string(),
            request.uri().path().to_owned(),
        );
        self.asked
            .lock()
            .unwrap()
            .push((method.clone(), path.clone(), authorized));
        if path.ends_with("/abort") && self.deaf.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match (method.as_str(), path.as_str()) {
            ("GET", "/global/health") => {
                json!({"healthy": true, "version": *self.version.lock().unwrap()})
            }
            ("GET", "/agent") => {
                let mut rules = vec![
                    json!({"permission": "bash", "pattern": "*", "action": "allow"}),
                    json!({"permission": "*", "pattern": "*", "action": "deny"}),
                    json!({"permission": "StructuredOutput", "pattern": "*", "action": "allow"}),
                ];
                rules.extend(self.rules.lock().unwrap().clone());
                json!([{"name": "kodo-planner", "permission": rules}])
            }
            ("POST", "/session") => json!({"id": format!("ses_{}", self.paths().len())}),
            (_, path) if path.ends_with("/message") => {
                let session = path.split('/').nth(2).unwrap();
                self.message(session).await
            }
            _ => json!(true),
        }
    }

    async fn message(&self, session: &str) -> Value {
        let mut last = (0, String::new());
        for _ in 0..self.insists.load(Ordering::SeqCst) {
            last = self
                .to_model_proxy("/v1/chat/completions", &self.token(), Some(session))
                .await;
        }
        let (status, text) = last;
        if status != 200 {
            let data = json!({"message": text, "statusCode": status});
            return json!({"info": {"error": {"name": "APIError", "data": data}}, "parts": []});
        }
        let mut arguments = String::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let Ok(chunk) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"];
            arguments.push_str(call.as_str().unwrap_or_default());
        }
        match serde_json::from_str::<Value>(&arguments) {
            Ok(value) => json!({"info": {"structured": value}, "parts": []}),
            Err(_) => {
                json!({"info": {"error": {"name": "StructuredOutputError", "data": {}}}, "parts": []})
            }
        }
    }
}

/// Starts it.
#[derive(Debug)]
pub struct Launcher(pub Arc<Fake>);

#[async_trait]
impl OpenCodeLauncher for Launcher {
    async fn launch(&self, start: Start) -> Result<Box<dyn OpenCodeProcess>, String> {
        let fake = Arc::clone(&self.0);
        fake.starts.fetch_add(1, Ordering::SeqCst);
        let broken = fake.broken_starts.load(Ordering::SeqCst);
        if broken > 0 {
            fake.broken_starts.store(broken - 1, Ordering::SeqCst);
            return Err("there is no room for it".to_owned());
        }
        let environment = start.environment(Path::new("/home"));
        let files = start.files(MODEL_PROXY_PORT);
        *fake.given.lock().unwrap() = format!("{environment:?} {files:?}");
        let value = |name: &str| {
            let found = environment.iter().find(|(key, _)| key == name);
            found.unwrap().1.clone()
        };
        let pair = format!(
            "{}:{}",
            value("OPENCODE_SERVER_USERNAME"),
            value("OPENCODE_SERVER_PASSWORD")
        );
        use base64::Engine;
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        let configuration: Value = serde_json::from_str(&files[0].1).unwrap();
        let token = &configuration["provider"]["model-proxy"]["options"]["apiKey"];
        let (to_model_proxy, model_proxy) = mpsc::channel(8);
        *fake.model_proxy.lock().unwrap() =
            Some((to_model_proxy, token.as_str().unwrap().to_owned()));
        Ok(Box::new(Process {
            fake,
            password: format!("Basic {pair}"),
            model_proxy: tokio::sync::Mutex::new(model_proxy),
            dead: AtomicBool::new(false),
        }))
    }
}

#[derive(Debug)]
struct Process {
    fake: Arc<Fake>,
    password: String,
    model_proxy: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
    dead: AtomicBool,
}

#[async_trait]
impl OpenCodeProcess for Process {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = duplex(1 << 16);
        let (fake, password) = (Arc::clone(&self.fake), self.password.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (fake, password) = (Arc::clone(&fake), password.clone());
                async move {
                    let answer = fake.answer(request, &password).await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        Ok(Box::new(ours))
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self.model_proxy.lock().await.recv().await {
            Some(stream) => Ok(Box::new(stream)),
            None => std::future::pending().await,
        }
    }

    async fn ended(&self) -> String {
        if !self.dead.load(Ordering::SeqCst) {
            self.fake.dies.notified().await;
            self.dead.store(true, Ordering::SeqCst);
        }
        "it was killed".to_owned()
    }
}
