//! The planner itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::converse::{Judge, Reached, by};
use crate::failure::Failure;
use crate::{
    Endpoint, LiveModel, OpenCodeUrl, PlanError, PlanRequest, PlanSource, Planned, Planner, Policy,
    Secret,
};

use super::launch::OpenCodeLauncher;
use super::server::{Server, broken};
use super::session::Session;

/// The provider's name in sources and recordings.
const PROVIDER: &str = "opencode";

/// How the shape of an answer is asked for: OpenCode has the model call a tool.
const FORM: &str = "tool_call";

/// How often a plan is asked for again after OpenCode went away in its middle.
const STARTS: u32 = 2;

/// What an [`OpenCodePlanner`] needs to know.
#[derive(Clone, Debug)]
pub struct OpenCodeConfig {
    /// The OpenCode.
    pub place: OpenCodePlace,
    /// Which one will do.
    pub version: VersionRule,
    /// The model's name; where OpenCode is somebody else's, `provider/model` as it is called there.
    pub model: String,
    /// Within which a plan has to be there: retries, repairs and all.
    pub deadline: Duration,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// What a plan may ask for.
    pub policy: Policy,
}

/// Which OpenCode it is.
#[derive(Clone, Debug)]
pub enum OpenCodePlace {
    /// One of our own, that reaches nothing but the model.
    Started {
        /// What starts it.
        launcher: Arc<dyn OpenCodeLauncher>,
        /// Where the model is.
        endpoint: Endpoint,
        /// The key, where the provider wants one. It stays here.
        secret: Option<Secret>,
        /// The first pause before a provider that failed is asked again.
        first_pause: Duration,
    },
    /// One that somebody else runs, and holds.
    Attached {
        /// Where it is.
        url: OpenCodeUrl,
        /// The user of its API.
        user: String,
        /// The password, where it has one.
        password: Option<Secret>,
    },
}

/// Which versions will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionRule {
    /// This one.
    Exactly(String),
    /// Whichever it is.
    Any,
}

/// Asks a model through OpenCode.
#[derive(Debug)]
pub struct OpenCodePlanner {
    config: OpenCodeConfig,
    server: Server,
}

impl OpenCodePlanner {
    /// Takes the configuration. Nothing is started before [`start`](Self::start), or the first question.
    #[must_use]
    pub fn new(config: OpenCodeConfig) -> Self {
        Self {
            server: Server::new(
                config.place.clone(),
                config.model.clone(),
                config.max_tokens,
                config.version.clone(),
            ),
            config,
        }
    }

    /// Starts OpenCode, or finds the one that runs, and sees that it does what plans need. No model is asked.
    ///
    /// # Errors
    /// Why it does not, and what to do about it.
    pub async fn start(&self) -> Result<(), Failure> {
        self.server.running().await.map(drop)
    }

    async fn answer(&self, request: &PlanRequest<'_>) -> Result<Reached, Failure> {
        let whole = self.config.deadline;
        let deadline = Instant::now() + whole;
        let _room = by(deadline, whole, async {
            let room = self.server.room.acquire().await;
            room.map_err(|_| broken("it was given up"))
        })
        .await?;
        let judge = Judge {
            policy: &self.config.policy,
            secret: match &self.config.place {
                OpenCodePlace::Started { secret, .. } => secret.as_ref(),
                OpenCodePlace::Attached { password, .. } => password.as_ref(),
            },
        };
        for start in 1.. {
            let opened = by(deadline, whole, async {
                let running = self.server.running().await?;
                let session = Session::open(
                    Arc::clone(&running),
                    request,
                    deadline,
                    self.config.max_tokens,
                );
                Ok(session.await.map_err(|error| {
                    running.give_up();
                    broken(&error.to_string())
                }))
            })
            .await?;
            let mut session = match opened {
                Ok(session) => session,
                Err(_) if start < STARTS => continue,
                Err(failure) => return Err(failure),
            };
            let reached = by(deadline, whole, judge.converse(&mut session, request)).await;
            let lost = session.lost;
            session.close().await;
            match reached {
                // What asking again can help with: the same question, to a new one.
                Err(_) if lost && start < STARTS => {}
                reached => return reached,
            }
        }
        unreachable!("the last start returns")
    }
}

#[async_trait]
impl Planner for OpenCodePlanner {
    fn name(&self) -> &'static str {
        PROVIDER
    }

    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError> {
        let reached = self.answer(request).await?;
        Ok(Planned {
            plan: reached.plan,
            source: PlanSource::Live {
                provider: PROVIDER.to_owned(),
                model: self.config.model.clone(),
                form: FORM.to_owned(),
                repairs: reached.repairs,
            },
        })
    }
}

impl LiveModel for OpenCodePlanner {
    fn model(&self) -> &str {
        &self.config.model
    }
}
