//! The one OpenCode that plans are asked of: started, seen to work, watched, started anew when it has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustls::crypto::ring;
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Secret;
use crate::failure::{Failure, FailureCode};
use crate::retry::backoff;
use crate::told::told;

use super::api::{Api, ApiError, Question};
use super::gate::{Gate, Purpose, Upstream};
use super::launch::{self, OpenCodeProcess, Start, TESTED_VERSION};
use super::link::Link;
use super::planner::{OpenCodePlace, VersionRule};

/// How long a start may take. It takes six seconds, and as many again for the first question, where the machine is
/// idle.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a start has to say that it is well, before it is asked anew.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a start is asked whether it is well.
const LOOK: Duration = Duration::from_millis(100);

/// The pause after a first start that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How many plans one process makes before another one takes its place: its log and its database only grow.
const PLANS_OF_ONE: u32 = 1000;

/// How many plans are asked for at once. Further ones wait, within their own time.
const AT_ONCE: usize = 8;

/// A server, as it is at the moment.
#[derive(Debug)]
pub(crate) struct Server {
    setup: Arc<Setup>,
    state: Arc<Mutex<State>>,
    pub(crate) room: Semaphore,
}

#[derive(Debug)]
struct Setup {
    place: OpenCodePlace,
    model: String,
    max_tokens: u32,
    version: VersionRule,
}

#[derive(Debug)]
enum State {
    /// None, since so many starts have failed; the next one not before then.
    Down(u32, Instant),
    Up(Arc<Running>),
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) api: Api,
    /// Where we have started it.
    pub(crate) gate: Option<Arc<Gate>>,
    /// The provider and the model, as it names them.
    pub(crate) provider: String,
    pub(crate) model: String,
    ended: Arc<AtomicBool>,
    plans: AtomicU32,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // They hold the process.
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Running {
    /// Leaves it to others: the next plan gets a new one.
    pub(crate) fn give_up(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Server {
    pub(crate) fn new(
        place: OpenCodePlace,
        model: String,
        max_tokens: u32,
        version: VersionRule,
    ) -> Self {
        Self {
            setup: Arc::new(Setup {
                place,
                model,
                max_tokens,
                version,
            }),
            state: Arc::new(Mutex::new(State::Down(0, Instant::now()))),
            room: Semaphore::new(AT_ONCE),
        }
    }

    /// The one that runs, or a new one.
    pub(crate) async fn running(&self) -> Result<Arc<Running>, Failure> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let (failures, not_before) = match &*state {
            State::Up(running) if running.serves() => return Ok(Arc::clone(running)),
            State::Up(_) => (0, Instant::now()),
            State::Down(failures, not_before) => (*failures, *not_before),
        };
        sleep_until(not_before).await;
        // A task of its own: whoever asked may not wait for its end, and the next one finds it.
        let start = tokio::spawn(start(Arc::clone(&self.setup), state, failures));
        start
            .await
            .unwrap_or_else(|_| Err(broken("its start broke off")))
    }
}

impl Running {
    fn serves(&self) -> bool {
        !self.has_ended() && self.plans.fetch_add(1, Ordering::Relaxed) < PLANS_OF_ONE
    }
}

async fn start(
    setup: Arc<Setup>,
    mut state: OwnedMutexGuard<State>,
    failures: u32,
) -> Result<Arc<Running>, Failure> {
    // The one before ends when its last plan does.
    *state = State::Down(failures, Instant::now());
    let began = Instant::now();
    let started = timeout(START_TIMEOUT, setup.start()).await;
    let started = started.unwrap_or_else(|_| {
        Err(broken(&format!(
            "it was not ready within {} s",
            START_TIMEOUT.as_secs()
        )))
    });
    match started {
        Ok(running) => {
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(took_ms, "OpenCode is ready");
            let running = Arc::new(running);
            *state = State::Up(Arc::clone(&running));
            Ok(running)
        }
        Err(failure) => {
            tracing::warn!(error = %failure, "OpenCode is not there");
            let pause = backoff(FIRST_PAUSE, failures, "opencode");
            *state = State::Down(failures.saturating_add(1), Instant::now() + pause);
            Err(failure)
        }
    }
}

impl Setup {
    async fn start(&self) -> Result<Running, Failure> {
        match &self.place {
            OpenCodePlace::Started {
                launcher,
                endpoint,
                secret,
                first_pause,
            } => {
                let start = Start {
                    model: self.model.clone(),
                    max_tokens: self.max_tokens,
                    password: random()?,
                    token: random()?,
                };
                let process = launcher.launch(start.clone()).await;
                let process = process.map_err(|reason| broken(&reason))?;
                let gate = Gate::new(
                    Upstream {
                        endpoint: endpoint.clone(),
                        model: self.model.clone(),
                        secret: secret.clone(),
                        first_pause: *first_pause,
                        max_tokens: self.max_tokens,
                    },
                    &start.token,
                );
                self.started(process.into(), Arc::new(gate), &start).await
            }
            OpenCodePlace::Attached {
                url,
                user,
                password,
            } => {
                let api = Api::new(Link::to(url), user, password.as_ref());
                self.attached(api).await
            }
        }
    }

    async fn started(
        &self,
        process: Arc<dyn OpenCodeProcess>,
        gate: Arc<Gate>,
        start: &Start,
    ) -> Result<Running, Failure> {
        let api = Api::new(
            Link::Process(Arc::clone(&process)),
            launch::USER,
            Some(&start.password),
        );
        let ended = Arc::new(AtomicBool::new(false));
        let running = Running {
            api,
            gate: Some(Arc::clone(&gate)),
            provider: launch::PROVIDER.to_owned(),
            model: self.model.clone(),
            ended: Arc::clone(&ended),
            plans: AtomicU32::new(1),
            tasks: vec![
                tokio::spawn(accept(Arc::clone(&process), gate)),
                tokio::spawn(watch(Arc::clone(&process), ended)),
            ],
        };
        let ready = async {
            let version = loop {
                // Whoever asks in the moment in which it begins to listen gets no answer: OpenCode forgets the question.
                match timeout(HEALTH_TIMEOUT, running.api.version()).await {
                    Ok(Ok(version)) => break version,
                    // Nobody listens yet.
                    Ok(Err(ApiError::Gone(_))) => sleep(LOOK).await,
                    Ok(Err(error)) => return Err(broken(&error.to_string())),
                    Err(_) => {}
                }
            };
            self.accepts(&version)?;
            running.try_out().await
        };
        let outcome = tokio::select! {
            ready = ready => ready,
            end = process.ended() => Err(broken(&end)),
        };
        outcome.map(|()| running)
    }

    async fn attached(&self, api: Api) -> Result<Running, Failure> {
        let trouble = |error: ApiError| match error {
            ApiError::Unauthorized => Failure::new(
                FailureCode::PlannerUnauthorized,
                "OpenCode at OC_OPENCODE_URL does not take the password (HTTP 401); OC_OPENCODE_PASSWORD or \
                 OC_OPENCODE_PASSWORD_FILE sets it, OC_OPENCODE_USERNAME the user",
            ),
            ApiError::Gone(reason) => Failure::new(
                FailureCode::PlannerUnreachable,
                format!("OpenCode at OC_OPENCODE_URL cannot be reached: {reason}"),
            ),
            other => broken(&other.to_string()),
        };
        let version = api.version().await.map_err(trouble)?;
        self.accepts(&version)?;
        let agent = launch::AGENT;
        match api.allowed_beyond_answering().await.map_err(trouble)? {
            Some(allowed) if allowed.is_empty() => {}
            Some(allowed) => {
                return Err(Failure::new(
                    FailureCode::PlannerRejected,
                    format!(
                        "the agent {agent} at OC_OPENCODE_URL may use more than its answer ({}): give it the \
                         permissions that docs/planner.md shows",
                        allowed.join(", ")
                    ),
                ));
            }
            None => {
                return Err(Failure::new(
                    FailureCode::PlannerRejected,
                    format!(
                        "OpenCode at OC_OPENCODE_URL has no agent {agent}: put the one of docs/planner.md into its \
                         configuration"
                    ),
                ));
            }
        }
        let (provider, model) = self.model.split_once('/').ok_or_else(|| {
            Failure::new(
                FailureCode::PlannerRejected,
                "OC_MODEL has to be PROVIDER/MODEL, as OpenCode at OC_OPENCODE_URL names them",
            )
        })?;
        Ok(Running {
            api,
            gate: None,
            provider: provider.to_owned(),
            model: model.to_owned(),
            ended: Arc::new(AtomicBool::new(false)),
            plans: AtomicU32::new(1),
            tasks: Vec::new(),
        })
    }

    fn accepts(&self, version: &str) -> Result<(), Failure> {
        match &self.version {
            VersionRule::Any => Ok(()),
            VersionRule::Exactly(wanted) if wanted == version => Ok(()),
            VersionRule::Exactly(wanted) => Err(broken(&format!(
                "it is version {version}, and {wanted} is wanted (this kodo was tested with {TESTED_VERSION}); \
                 OC_OPENCODE_VERSION says which one is accepted, or any"
            ))),
        }
    }
}

impl Running {
    /// Asks once what the gate answers itself: whether sessions, structured answers and the way to the model work as
    /// they did when this was written. It also is what makes OpenCode load what its first question needs.
    async fn try_out(&self) -> Result<(), Failure> {
        let different = |what: String| {
            broken(&format!(
                "it does not do what it was tested to do ({what}); OC_OPENCODE_VERSION says which version is accepted"
            ))
        };
        let call = |error: ApiError| different(error.to_string());
        let allowed = self.api.allowed_beyond_answering().await.map_err(call)?;
        if allowed.as_ref().is_none_or(|allowed| !allowed.is_empty()) {
            return Err(different(format!(
                "its agent may use {}",
                allowed.map_or("nothing: it is not there".to_owned(), |it| it.join(", "))
            )));
        }
        let session = self.api.create().await.map_err(call)?;
        let gate = self.gate.as_ref();
        let _ticket = gate.map(|gate| gate.admit(&session, Purpose::Warm));
        let question = Question {
            provider: &self.provider,
            model: &self.model,
            system: "",
            text: "Are you ready?",
            schema: json!({
                "type": "object",
                "properties": {"ready": {"type": "boolean"}},
                "required": ["ready"],
            }),
        };
        let message = self.api.prompt(&session, &question).await.map_err(call)?;
        if message["info"]["structured"]["ready"] != true {
            let said = message["info"].to_string();
            return Err(different(format!(
                "an answer came as {}",
                told(&said, None)
            )));
        }
        self.api.delete(&session).await.map_err(call)
    }
}

async fn accept(process: Arc<dyn OpenCodeProcess>, gate: Arc<Gate>) {
    // Its connections end with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match process.accept().await {
            Ok(stream) => {
                while connections.try_join_next().is_some() {}
                connections.spawn(Arc::clone(&gate).serve(stream));
            }
            // Descriptors may have run out for a moment.
            Err(_) => sleep(LOOK).await,
        }
    }
}

async fn watch(process: Arc<dyn OpenCodeProcess>, ended: Arc<AtomicBool>) {
    let how = process.ended().await;
    ended.store(true, Ordering::SeqCst);
    tracing::warn!(how, "OpenCode has ended; the next plan starts it anew");
}

pub(crate) fn broken(reason: &str) -> Failure {
    Failure::new(
        FailureCode::PlannerUnavailable,
        format!("OpenCode does not work here: {reason}"),
    )
}

/// Something that nobody can guess.
fn random() -> Result<Secret, Failure> {
    let mut bytes = [0; 24];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| broken("the system has no random numbers"))?;
    Ok(Secret::new(
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
    ))
}
