//! The load: clients that behave as real ones should, and ask again until they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use hyper::Method;
use kodo_dev::harness::{Answer, Client};
use tokio::time::Instant;

use super::board::{AcceptedRun, Board};

/// The intents that clients have: the one of the course, with a plan of its own, and one that gets the default plan.
pub(super) const INTENTS: [&str; 2] = [
    r#"{"goal":"demo","inputs":{"repo":"sisu-kodo"},"constraints":{"determinism":true},"connectors":[]}"#,
    r#"{"goal":"survive","inputs":{},"constraints":{}}"#,
];

/// Pause before a request is sent again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a client asks before it gives up, which is a violation: no schedule is down for that long.
const PATIENCE: Duration = Duration::from_secs(180);

/// Pause between two looks at a run.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a client asks, and the status that the contract has for the answer.
#[derive(Clone, Copy)]
struct Question<'a> {
    method: &'a Method,
    path: &'a str,
    key: Option<&'a str>,
    body: &'a str,
    status: u16,
}

impl Question<'_> {
    async fn ask(&self, client: &Client) -> anyhow::Result<Answer> {
        let key = self.key.map(|key| ("idempotency-key", key));
        let (method, body) = (self.method.clone(), self.body.to_owned());
        client.send(method, self.path, key.as_slice(), body).await
    }
}

/// One client. Its numbered requests carry keys that nobody else uses.
pub(super) struct Customer {
    board: Arc<Board>,
    stop: Arc<AtomicBool>,
    rng: Rng,
    name: String,
    number: u64,
    /// The last connection, which is kept while it works.
    connection: Option<Client>,
}

impl Customer {
    /// A client of the soak with this seed.
    pub(super) fn new(board: Arc<Board>, stop: Arc<AtomicBool>, seed: u64, index: usize) -> Self {
        Self {
            board,
            stop,
            rng: Rng::with_seed(seed ^ (0x5eed << 32) ^ index as u64),
            name: format!("chaos-{seed}-{index}"),
            number: 0,
            connection: None,
        }
    }

    /// Starts runs and crash demos until it is told to stop, one after the other, each with an answer.
    pub(super) async fn work(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            // `None` where the client gave up, which the board knows.
            if self.rng.u32(..6) == 0 {
                let _ = self.crash_demo().await;
            } else {
                let _ = self.intent_and_runs().await;
            }
        }
    }

    /// One intent of a kind and a run of it, for the undisturbed reference.
    pub(super) async fn one_run(&mut self, kind: usize) -> Option<AcceptedRun> {
        let intent = self.store_intent(kind).await?;
        let run = self.start_run(&intent, kind).await?;
        self.follow(&run.run, true).await;
        Some(run)
    }

    async fn intent_and_runs(&mut self) -> Option<()> {
        let kind = self.rng.usize(..INTENTS.len());
        let intent = self.store_intent(kind).await?;
        let mut last = None;
        for _ in 0..self.rng.u32(1..=2) {
            last = Some(self.start_run(&intent, kind).await?);
        }
        self.follow(&last?.run, false).await;
        Some(())
    }

    async fn store_intent(&mut self, kind: usize) -> Option<String> {
        let key = self.key("intent");
        let id = self
            .keyed("/intents", &key, INTENTS[kind], (201, "intentId"))
            .await?;
        self.board.told().intents.insert(key, id.clone());
        Some(id)
    }

    async fn start_run(&mut self, intent: &str, kind: usize) -> Option<AcceptedRun> {
        let key = self.key("run");
        // The key again as trace id: the rows can then be told apart without the service's help.
        let body = format!(r#"{{"traceId":"{key}"}}"#);
        let path = format!("/intents/{intent}/run");
        let id = self.keyed(&path, &key, &body, (202, "runId")).await?;
        let run = AcceptedRun {
            run: id,
            intent: intent.to_owned(),
            key,
            kind,
        };
        self.board.told().runs.push(run.clone());
        Some(run)
    }

    /// A `POST` with a key, until it is answered; sometimes at two services at once, sometimes once more afterwards.
    /// Whatever comes back must name one and the same thing.
    async fn keyed(
        &mut self,
        path: &str,
        key: &str,
        body: &str,
        (status, field): (u16, &str),
    ) -> Option<String> {
        let question = Question {
            method: &Method::POST,
            path,
            key: Some(key),
            body,
            status,
        };
        let mut answers = Vec::new();
        if self.rng.u32(..8) == 0 {
            answers.extend(self.at_two_services(question).await);
        }
        let again = if self.rng.u32(..4) == 0 { 2 } else { 1 };
        for _ in 0..again {
            let answer = self.ask(question).await?;
            if answer.header("idempotency-replayed") == Some("true") {
                self.board.told().replayed += 1;
            }
            answers.push(answer);
        }
        let ids = answers.iter().map(Answer::json);
        let ids = ids.map(|answer| answer[field].as_str().unwrap_or_default().to_owned());
        let mut ids: Vec<String> = ids.collect();
        ids.dedup();
        if ids.len() > 1 {
            let wrong = format!("key {key} was answered with different ids: {ids:?}");
            self.board.wrong(wrong);
        }
        ids.pop()
    }

    /// The same request at two services at the same time, once each; who has no answer is not asked again here.
    async fn at_two_services(&mut self, question: Question<'_>) -> Vec<Answer> {
        let (Some(one), Some(other)) = (self.board.service(0), self.board.service(1)) else {
            return Vec::new();
        };
        let (one, other) = (Client::new(one.port), Client::new(other.port));
        let (one, other) = tokio::join!(question.ask(&one), question.ask(&other));
        let answers = [one, other].into_iter().flatten();
        answers
            .filter_map(|answer| self.judge(question, answer))
            .collect()
    }

    async fn crash_demo(&mut self) -> Option<()> {
        let id = self.key("demo");
        let path = format!("/crashdemo?wf={id}");
        for _ in 0..self.rng.u32(1..=2) {
            self.ask(unkeyed(&Method::POST, &path, 202)).await?;
        }
        self.board.told().demos.push(id.clone());
        let path = format!("/marks?wf={id}");
        while !self.stop.load(Ordering::Relaxed) {
            let marks = self.ask(unkeyed(&Method::GET, &path, 200)).await?.json();
            match (marks["s1"].as_i64(), marks["s2"].as_i64()) {
                (Some(1), Some(1)) => break,
                (Some(0 | 1), Some(0)) => tokio::time::sleep(LOOK_AGAIN).await,
                _ => {
                    self.board
                        .wrong(format!("crash demo {id} has the marks {marks}"));
                    break;
                }
            }
        }
        Some(())
    }

    /// Looks at a run until it is over. An accepted run is never unknown again, whatever dies in between.
    async fn follow(&mut self, run: &str, to_the_end: bool) {
        let path = format!("/runs/{run}");
        while to_the_end || !self.stop.load(Ordering::Relaxed) {
            let Some(answer) = self.ask(unkeyed(&Method::GET, &path, 200)).await else {
                return;
            };
            match answer.json()["status"].as_str() {
                Some("queued" | "running") => tokio::time::sleep(LOOK_AGAIN).await,
                Some("succeeded") => {
                    self.board.told().ended += 1;
                    return;
                }
                _ => {
                    return self
                        .board
                        .wrong(format!("{run} was shown as {}", answer.text()));
                }
            }
        }
    }

    /// Sends a request until it is answered with anything but "come again".
    async fn ask(&mut self, question: Question<'_>) -> Option<Answer> {
        let give_up = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(client) = self.client() {
                match question.ask(&client).await {
                    Ok(answer) if answer.status == 503 => drop(self.judge(question, answer)),
                    Ok(answer) => return self.judge(question, answer),
                    Err(_) => {
                        let mut told = self.board.told();
                        told.requests += 1;
                        told.unanswered += 1;
                    }
                }
                // Whoever gave no good answer is left for the other one.
                self.connection = None;
            }
            if Instant::now() >= give_up {
                let Question {
                    method, path, key, ..
                } = question;
                self.board.wrong(format!(
                    "{method} {path} (key {key:?}) had no answer within {PATIENCE:?}"
                ));
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Counts an answer; one that no fault excuses is a violation and is not passed on.
    fn judge(&self, question: Question<'_>, answer: Answer) -> Option<Answer> {
        let Question { path, status, .. } = question;
        self.board.told().requests += 1;
        if answer.status == status {
            return Some(answer);
        }
        if answer.status == 503 {
            self.board.told().unavailable += 1;
        } else {
            self.board.wrong(format!(
                "{path} answered {} instead of {status}: {}",
                answer.status,
                answer.text()
            ));
        }
        None
    }

    /// The service of the last answer, else one that is up.
    fn client(&mut self) -> Option<Client> {
        if self.connection.is_none() {
            let first = self.rng.usize(..2);
            let up = self.board.service(first);
            let up = up.or_else(|| self.board.service(first + 1))?;
            self.connection = Some(Client::new(up.port));
        }
        self.connection.clone()
    }

    fn key(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{}-{what}-{}", self.name, self.number)
    }
}

/// A request without a key and without a body.
fn unkeyed<'a>(method: &'a Method, path: &'a str, status: u16) -> Question<'a> {
    Question {
        method,
        path,
        key: None,
        body: "",
        status,
    }
}
