//! One OpenCode that runs: started or attached to, tested before it is used, and watched until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustls::crypto::ring;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use kodo_contract::ErrorCode;

use crate::failure::Failure;
use crate::sanitize::sanitized;
use crate::{OpenCodeUrl, Secret};

use super::api::{Api, ApiError, Prompt};
use super::config::{OpenCodeConfig, OpenCodePlace};
use super::launch::{self, OpenCodeProcess, Start};
use super::link::Link;
use super::model_proxy::{ModelProxy, Purpose, Upstream};

/// How long one health request of a starting OpenCode may take before it is sent again.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between health requests, and after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The most plans of one process, since its log and its database only grow.
const MAX_PLANS: u32 = 1000;

/// An OpenCode that runs. Dropping it ends the process, if it was started here.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) api: Api,
    /// Its way to the model, if it was started here.
    pub(crate) proxy: Option<Arc<ModelProxy>>,
    /// The provider and the model, as OpenCode calls them.
    pub(crate) provider: String,
    pub(crate) model: String,
    retired: Arc<AtomicBool>,
    plans: AtomicU32,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The tasks own the process.
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Running {
    /// Starts or attaches to the OpenCode of a configuration, and checks that it does what plans need.
    pub(crate) async fn start(config: &OpenCodeConfig) -> Result<Self, Failure> {
        match &config.place {
            OpenCodePlace::Started {
                launcher,
                endpoint,
                secret,
                first_pause,
            } => {
                let start = Start {
                    model: config.model.clone(),
                    max_tokens: config.max_tokens,
                    password: random()?,
                    token: random()?,
                };
                let process = launcher.launch(start.clone()).await;
                let process = process.map_err(|reason| away(&reason))?;
                let upstream = Upstream {
                    endpoint: endpoint.clone(),
                    model: config.model.clone(),
                    secret: secret.clone(),
                    first_pause: *first_pause,
                    max_tokens: config.max_tokens,
                };
                let proxy = Arc::new(ModelProxy::new(upstream, &start.token));
                Self::started(config, process.into(), proxy, &start).await
            }
            OpenCodePlace::Attached {
                url,
                user,
                password,
            } => Self::attached(config, url, user, password.as_ref()).await,
        }
    }

    async fn started(
        config: &OpenCodeConfig,
        process: Arc<dyn OpenCodeProcess>,
        proxy: Arc<ModelProxy>,
        start: &Start,
    ) -> Result<Self, Failure> {
        let link = Link::Process(Arc::clone(&process));
        let retired = Arc::new(AtomicBool::new(false));
        let running = Self {
            api: Api::new(link, launch::USER, Some(&start.password)),
            proxy: Some(Arc::clone(&proxy)),
            provider: launch::PROVIDER.to_owned(),
            model: config.model.clone(),
            retired: Arc::clone(&retired),
            plans: AtomicU32::new(0),
            tasks: vec![
                tokio::spawn(accept(Arc::clone(&process), proxy)),
                tokio::spawn(watch(Arc::clone(&process), retired)),
            ],
        };
        let ready = async {
            let version = running.healthy().await?;
            let accepted = config.version.check(&version);
            accepted.map_err(|reason| unavailable(&reason))?;
            running.self_test().await
        };
        let outcome = tokio::select! {
            ready = ready => ready,
            end = process.ended() => Err(away(&end)),
        };
        outcome.map(|()| running)
    }

    async fn attached(
        config: &OpenCodeConfig,
        url: &OpenCodeUrl,
        user: &str,
        password: Option<&Secret>,
    ) -> Result<Self, Failure> {
        let failed = |error: ApiError| match error {
            ApiError::Unauthorized => Failure::new(
                ErrorCode::PlannerUnauthorized,
                "OpenCode at OC_OPENCODE_URL does not accept the password (HTTP 401); OC_OPENCODE_PASSWORD or \
                 OC_OPENCODE_PASSWORD_FILE sets it, OC_OPENCODE_USERNAME the user",
            ),
            ApiError::Unreachable(reason) => Failure::passing(
                ErrorCode::PlannerUnreachable,
                format!("OpenCode at OC_OPENCODE_URL cannot be reached: {reason}"),
            ),
            ApiError::Timeout => away(&error.to_string()),
            other => unavailable(&other.to_string()),
        };
        let rejected = |reason: String| Failure::new(ErrorCode::PlannerRejected, reason);
        let api = Api::new(Link::to(url), user, password);
        let version = api.version().await.map_err(failed)?;
        let accepted = config.version.check(&version);
        accepted.map_err(|reason| unavailable(&reason))?;
        let agent = launch::AGENT;
        match api.allowed_beyond_answering().await.map_err(failed)? {
            Some(allowed) if allowed.is_empty() => {}
            Some(allowed) => {
                return Err(rejected(format!(
                    "the agent {agent} at OC_OPENCODE_URL may use more than its answer ({}): give it the permissions \
                     that docs/planner.md shows",
                    allowed.join(", ")
                )));
            }
            None => {
                return Err(rejected(format!(
                    "OpenCode at OC_OPENCODE_URL has no agent {agent}: put the one of docs/planner.md into its \
                     configuration"
                )));
            }
        }
        let (provider, model) = config.model.split_once('/').ok_or_else(|| {
            rejected(
                "OC_MODEL has to be PROVIDER/MODEL, as OpenCode at OC_OPENCODE_URL names them"
                    .to_owned(),
            )
        })?;
        Ok(Self {
            api,
            proxy: None,
            provider: provider.to_owned(),
            model: model.to_owned(),
            retired: Arc::default(),
            plans: AtomicU32::new(0),
            tasks: Vec::new(),
        })
    }

    /// Counts one more plan. Returns false if another OpenCode has to make it.
    pub(crate) fn take_plan(&self) -> bool {
        !self.retired.load(Ordering::SeqCst)
            && self.plans.fetch_add(1, Ordering::Relaxed) < MAX_PLANS
    }

    /// Makes the next plan go to a new OpenCode.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    /// Waits until the API answers, and returns the version.
    async fn healthy(&self) -> Result<String, Failure> {
        loop {
            // OpenCode never answers a request that arrives in the moment in which it begins to listen.
            match timeout(HEALTH_TIMEOUT, self.api.version()).await {
                Ok(Ok(version)) => return Ok(version),
                // It does not listen yet.
                Ok(Err(ApiError::Unreachable(_))) => sleep(PAUSE).await,
                Ok(Err(error)) => return Err(unavailable(&error.to_string())),
                Err(_) => {}
            }
        }
    }

    /// Sends one prompt that the model proxy answers itself, to see that sessions, structured answers and the way to the
    /// model work as they did when this was tested. It also makes OpenCode load what its first prompt needs.
    async fn self_test(&self) -> Result<(), Failure> {
        let different = |what: String| {
            unavailable(&format!(
                "it does not do what it was tested to do ({what}); OC_OPENCODE_VERSION says which version is accepted"
            ))
        };
        let call = |error: ApiError| different(error.to_string());
        match self.api.allowed_beyond_answering().await.map_err(call)? {
            Some(allowed) if allowed.is_empty() => {}
            Some(allowed) => {
                return Err(different(format!(
                    "its agent may use {}",
                    allowed.join(", ")
                )));
            }
            None => return Err(different("its agent is not there".to_owned())),
        }
        let session = self.api.create().await.map_err(call)?;
        let proxy = self.proxy.as_ref();
        let _grant = proxy.map(|proxy| proxy.grant(&session, Purpose::SelfTest));
        let prompt = Prompt {
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
        let message = self.api.prompt(&session, &prompt).await.map_err(call)?;
        if message["info"]["structured"]["ready"] != true {
            let info = sanitized(&message["info"].to_string(), None);
            return Err(different(format!("an answer came as {info}")));
        }
        self.api.delete(&session).await.map_err(call)
    }
}

/// Serves OpenCode's connections to the model proxy. They end with this task.
async fn accept(process: Arc<dyn OpenCodeProcess>, proxy: Arc<ModelProxy>) {
    let mut connections = JoinSet::new();
    loop {
        match process.accept().await {
            Ok(stream) => {
                while connections.try_join_next().is_some() {}
                connections.spawn(Arc::clone(&proxy).serve(stream));
            }
            // File descriptors may have run out for a moment.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn watch(process: Arc<dyn OpenCodeProcess>, retired: Arc<AtomicBool>) {
    let how = process.ended().await;
    retired.store(true, Ordering::SeqCst);
    tracing::warn!(how, "OpenCode has ended; the next plan starts it again");
}

/// The failure of a plan for which there is no OpenCode that works.
pub(crate) fn unavailable(reason: &str) -> Failure {
    Failure::new(
        ErrorCode::PlannerUnavailable,
        format!("OpenCode does not work here: {reason}"),
    )
}

/// The same, for a cause that may pass by itself, such as a machine that is short of memory.
pub(crate) fn away(reason: &str) -> Failure {
    unavailable(reason).may_pass_after(Duration::ZERO)
}

/// A secret that nobody can guess.
fn random() -> Result<Secret, Failure> {
    let mut bytes = [0; 24];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| unavailable("the system has no random numbers"))?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(Secret::new(digits.collect::<String>()))
}
