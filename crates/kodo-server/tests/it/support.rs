//! Test support: an engine handle with a fake launch, a store without a database, a server, and clients.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kodo_engine::{EngineError, EngineHandle, Launched};
use kodo_server::{
    App, Readiness, Route, ServerConfig, Shutdown, admin_routes, origins_of, product_router,
    product_routes,
};
use kodo_store::content::ArtifactStoreCell;
use kodo_store::{DatabaseConfig, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// What the crash demos of a fixture were asked for.
#[derive(Default)]
pub(crate) struct Demos {
    pub(crate) started: Mutex<Vec<String>>,
    /// Notified when a request has reached its handler.
    pub(crate) reached: Notify,
}

impl Demos {
    /// Starts a demo. Ids that name a failure fail so.
    async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.reached.notify_one();
        match id {
            "unavailable" => return Err(EngineError::Unavailable),
            "taken" => return Err(EngineError::TakenByAnotherWorkflow),
            "refused" => return Err(EngineError::Refused("secret".into())),
            "hang" => std::future::pending().await,
            "slow" => tokio::time::sleep(Duration::from_millis(250)).await,
            "panic" => panic!("secret"),
            _ => {}
        }
        self.started.lock().unwrap().push(id.to_owned());
        Ok(())
    }
}

/// A booted app on a database that is not there, with an engine that is launched as far as requests see.
pub(crate) struct Fixture {
    pub(crate) app: App,
    pub(crate) engine: EngineHandle,
    pub(crate) demos: Arc<Demos>,
}

pub(crate) fn config() -> ServerConfig {
    ServerConfig {
        allowed_origins: origins_of("127.0.0.1", 3001),
        request_timeout: Duration::from_millis(800),
        body_timeout: Duration::from_secs(1),
        max_upload_bytes: 2 << 20,
        ..ServerConfig::default()
    }
}

pub(crate) fn booted(config: ServerConfig) -> Fixture {
    // Nothing listens on the port of tcpmux.
    booted_on(config, 1)
}

/// A booted app whose database is at this port of the loopback interface.
pub(crate) fn booted_on(config: ServerConfig, database_port: u16) -> Fixture {
    let readiness = Readiness::new();
    readiness.set_migrated();
    fixture_on(config, readiness, database_port)
}

pub(crate) fn fixture(config: ServerConfig, readiness: Readiness) -> Fixture {
    fixture_on(config, readiness, 1)
}

fn fixture_on(config: ServerConfig, readiness: Readiness, database_port: u16) -> Fixture {
    let database = DatabaseConfig {
        ssl_mode: kodo_store::SslMode::default(),
        host: "127.0.0.1".into(),
        port: database_port,
        user: "nobody".into(),
        password: String::new(),
        database: "nothing".into(),
    };
    let engine = EngineHandle::default();
    let demos = Arc::new(Demos::default());
    let starting = Arc::clone(&demos);
    engine.set_launched(Some(Launched::fake(move |id| {
        let demos = Arc::clone(&starting);
        async move { demos.start(&id).await }
    })));
    let store = Store::new(&database, 2);
    let artifacts = ArtifactStoreCell::default();
    let app = App::new(config, store, artifacts, engine.clone(), readiness);
    Fixture { app, engine, demos }
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// Sends one request through a router; `request` is `METHOD target`.
pub(crate) async fn ask(
    router: &Router,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let (method, target) = request.split_once(' ').unwrap();
    let mut builder = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| *name == "host") {
        builder = builder.header("host", "127.0.0.1:3001");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let request = builder.body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let answer = Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(bytes.to_vec()).unwrap(),
    };
    check_declared(method, target, &answer);
    answer
}

/// A route gives no answer that it does not declare: checked for every request of these tests.
fn check_declared(method: &str, target: &str, answer: &Answer) {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let error = body["error"].as_str().unwrap_or_default();
    // The answer to a path without a route. Each router lacks routes that the other one has.
    if error == "not found" {
        return;
    }
    let path = target.split('?').next().unwrap();
    let is_of = |route: &Route| {
        let get = method == "HEAD" && route.method == "GET";
        let mut pairs = route.path.split('/').zip(path.split('/'));
        (get || method == route.method)
            && route.path.split('/').count() == path.split('/').count()
            && pairs.all(|(name, segment)| name.starts_with('{') || name == segment)
    };
    let mut routes = product_routes().into_iter().chain(admin_routes());
    if let Some(route) = routes.find(is_of) {
        let declared = route.answers.iter().any(|declared| {
            let success = error.is_empty() || method == "HEAD";
            declared.status == answer.status && (success || error.starts_with(&declared.meaning))
        });
        assert!(
            declared,
            "{method} {target} answered {} {}, which it does not declare",
            answer.status, answer.body
        );
    }
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router, grace: Duration) -> Self {
        Self::bounded(router, grace, 1000).await
    }

    /// One that has at most so many connections.
    pub(crate) async fn bounded(router: Router, grace: Duration, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(kodo_server::serve(
            listener,
            router,
            shutdown.clone(),
            grace,
            most,
        ));
        Self {
            address,
            shutdown,
            task,
        }
    }

    /// The product API, booted, without a database.
    pub(crate) async fn product() -> Self {
        Self::start(
            product_router(&booted(config()).app),
            Duration::from_secs(5),
        )
        .await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Writes, and then reads until the server closes; a reset fails the test.
pub(crate) async fn exchange(socket: &mut TcpStream, bytes: &[u8]) -> String {
    socket.write_all(bytes).await.unwrap();
    read_to_close(socket).await
}

pub(crate) async fn read_to_close(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(8), socket.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection")
        .expect("no reset");
    String::from_utf8(answer).unwrap()
}

/// Reads one answer with a `content-length`, and leaves the connection open.
pub(crate) async fn read_one(socket: &mut TcpStream) -> String {
    let mut answer = String::new();
    loop {
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse::<usize>().unwrap()) {
                return answer;
            }
        }
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(8), socket.read(&mut byte));
        assert_eq!(
            read.await.expect("an answer").unwrap(),
            1,
            "closed after {answer:?}"
        );
        answer.push(char::from(byte[0]));
    }
}
