//! One request and its answer as text.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hyper::Method;
use kodo_dev::harness::{Answer, Client};

use crate::normalise::{Normaliser, laid_out};

use crate::goldens::Shown;
use crate::support::{DEMO_INTENT, text};

/// What walkthrough C of the course sends to start the run.
pub const DEMO_RUN: &str = r#"{"traceId":"po-demo"}"#;

/// The longest part of a request that is shown whole.
const SHOWN: usize = 300;

/// How often a request is sent again that was told `unavailable` by a service that has its database.
const TRIES: u32 = 10;

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    method: String,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A request from its first line, such as `POST /intents`.
pub fn ask(line: &str) -> Ask {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    Ask {
        method: method.to_owned(),
        path: path.to_owned(),
        ..Ask::default()
    }
}

/// The demo intent and its run, started as the course does; the answers to both.
pub async fn start_demo(client: &Client) -> (Answer, Answer) {
    let stored = ask("POST /intents").body(DEMO_INTENT);
    let stored = stored.send_until_available(client).await;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let run = ask(&format!("POST /intents/{}/run", text(&stored, "intentId"))).body(DEMO_RUN);
    let accepted = run.send_until_available(client).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    (stored, accepted)
}

impl Ask {
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub async fn send(&self, client: &Client) -> Answer {
        let method = Method::from_bytes(self.method.as_bytes()).expect("a method");
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        client
            .send(method, &self.path, &headers, self.body.clone())
            .await
            .expect("an answer")
    }

    /// Sends it again while the answer is 503: a machine that is too busy makes for weather, and weather passes. What
    /// is always unavailable still is in the end.
    pub async fn send_until_available(&self, client: &Client) -> Answer {
        let mut answer = self.send(client).await;
        for _ in 0..TRIES {
            if answer.status != 503 {
                break;
            }
            answer = self.send(client).await;
        }
        answer
    }

    fn shown(&self) -> String {
        let mut text = format!("{} {}\n", self.method, short(self.path.as_bytes()));
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {}\n", short(value.as_bytes())));
        }
        if !self.body.is_empty() {
            text.push_str(&format!("\n{}\n", short(&self.body)));
        }
        text
    }
}

/// Bytes as text: long ones by their beginning and their number, odd ones escaped.
fn short(bytes: &[u8]) -> String {
    if bytes.len() > SHOWN {
        let start = String::from_utf8_lossy(&bytes[..40]);
        return format!("{start}… ({} bytes)", bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() || c == '\u{feff}') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// An answer as it came: status, every header, body.
pub struct Came {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl From<Answer> for Came {
    fn from(answer: Answer) -> Self {
        let headers = answer.headers.iter().map(|(name, value)| {
            let value = value.to_str().expect("a readable header");
            (name.to_string(), value.to_owned())
        });
        Self {
            status: answer.status,
            headers: headers.collect(),
            body: answer.text(),
        }
    }
}

impl Came {
    fn shown(mut self, normaliser: &mut Normaliser) -> String {
        // The order of headers means nothing.
        self.headers.sort();
        let mut text = format!("{}\n", self.status);
        for (name, value) in &self.headers {
            let value = if name == "date" && is_http_date(value) {
                "<http-date>".to_owned()
            } else {
                normaliser.text(value)
            };
            text.push_str(&format!("{name}: {value}\n"));
        }
        if !self.body.is_empty() {
            let body = laid_out(&normaliser.text(&self.body));
            text.push_str(&format!("\n{body}\n"));
        }
        text
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` and nothing else.
fn is_http_date(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| match c {
            '0'..='9' => '0',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        })
        .collect();
    shape == "Aaa, 00 Aaa 0000 00:00:00 AAA" && text.ends_with(" GMT")
}

/// Exchanges by name; a name begins with the status.
#[derive(Default)]
pub struct Exchanges(BTreeMap<String, String>);

impl Exchanges {
    /// Sends a request and notes its answer.
    pub async fn note(&mut self, client: &Client, name: &str, ask: Ask) {
        self.note_alike(client, name, vec![ask]).await;
    }

    /// Sends requests that all have the same answer and notes them with it.
    pub async fn note_alike(&mut self, client: &Client, name: &str, asks: Vec<Ask>) {
        let mut came = Vec::new();
        for ask in asks {
            let began = SystemTime::now();
            let answer = if name.starts_with("503") {
                ask.send(client).await
            } else {
                ask.send_until_available(client).await
            };
            came.push((ask, began, answer.into()));
        }
        self.note_answers(name, came);
    }

    /// Notes requests whose answers are here already.
    pub fn note_answers(&mut self, name: &str, came: Vec<(Ask, SystemTime, Came)>) {
        let mut requests = String::new();
        let mut common: Option<String> = None;
        for (ask, began, answer) in came {
            let status = answer.status.to_string();
            assert!(
                name.starts_with(&status),
                "{name}: {status} {}",
                answer.body
            );
            // Each with placeholders of its own: they differ in their request ids alone.
            let mut normaliser = Normaliser::new(began..=SystemTime::now());
            let request = normaliser.text(&ask.shown());
            let shown = answer.shown(&mut normaliser);
            if let Some(common) = &common {
                assert_eq!(&shown, common, "{name}: {request}");
            }
            if !requests.is_empty() {
                requests.push('\n');
            }
            requests.push_str(&request);
            common = Some(shown);
        }
        let text = format!("{requests}\n=> {}", common.expect("an answer"));
        let before = self.0.insert(format!("{name}.txt"), text);
        assert!(before.is_none(), "two exchanges are named {name}");
    }

    pub fn and(mut self, more: Self) -> Self {
        for (name, text) in more.0 {
            assert!(
                self.0.insert(name.clone(), text).is_none(),
                "two are named {name}"
            );
        }
        self
    }

    pub fn shown(self) -> Shown {
        Shown::Folder(self.0)
    }
}
