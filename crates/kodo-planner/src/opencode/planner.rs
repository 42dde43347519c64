//! The planner that asks a model through OpenCode.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::conversation::{Answer, Conversation};
use crate::failure::Failure;
use crate::retry::{Retries, Time};
use crate::{LiveModel, PlanError, PlanRequest, PlanSource, Planned, Planner};

use super::config::{OpenCodeConfig, OpenCodePlace};
use super::running::away;
use super::server::Server;
use super::session::Session;

/// The provider's name in sources and recordings.
const PROVIDER: &str = "opencode";

/// How the shape of an answer is requested: OpenCode makes the model call a tool.
const FORM: &str = "tool_call";

/// The first pause before a plan is begun again, because OpenCode or its connection to the model broke off.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Asks a model through OpenCode.
#[derive(Debug)]
pub struct OpenCodePlanner {
    server: Server,
}

impl OpenCodePlanner {
    /// Takes the configuration. Nothing is started before [`start`](Self::start), or the first question.
    #[must_use]
    pub fn new(config: OpenCodeConfig) -> Self {
        Self {
            server: Server::new(config),
        }
    }

    /// Starts OpenCode, or attaches to the one that runs, and checks that it does what plans need. No model is asked.
    ///
    /// # Errors
    /// Why it does not, and what to do about it.
    pub async fn start(&self) -> Result<(), Failure> {
        self.server.running().await.map(drop)
    }

    async fn answer(&self, request: &PlanRequest<'_>) -> Result<Answer, Failure> {
        let config = self.server.config();
        // The time of those who wait for their turn has not begun.
        let _permit = self.server.permit().await?;
        let time = Arc::new(Time::of(config.deadline));
        let mut retries = Retries::new(FIRST_PAUSE, &time);
        loop {
            let failure = match self.attempt(request, &time).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            retries.wait(failure, request.idempotency_key).await?;
        }
    }

    /// Makes the plan in a session of its own.
    async fn attempt(
        &self,
        request: &PlanRequest<'_>,
        time: &Arc<Time>,
    ) -> Result<Answer, Failure> {
        let config = self.server.config();
        let conversation = Conversation {
            policy: &config.policy,
            secret: match &config.place {
                OpenCodePlace::Started { secret, .. } => secret.as_ref(),
                OpenCodePlace::Attached { password, .. } => password.as_ref(),
            },
        };
        let opened = time.bound(async {
            let running = self.server.running().await?;
            let session = Session::open(Arc::clone(&running), request, time, config);
            session.await.map_err(|error| {
                running.retire();
                away(&error.to_string())
            })
        });
        let mut session = opened.await?;
        let answer = time.bound(conversation.run(&mut session, request)).await;
        session.close().await;
        answer
    }
}

#[async_trait]
impl Planner for OpenCodePlanner {
    fn name(&self) -> &'static str {
        PROVIDER
    }

    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError> {
        let answer = self.answer(request).await?;
        Ok(Planned {
            plan: answer.plan,
            source: PlanSource::Live {
                provider: PROVIDER.to_owned(),
                model: self.model().to_owned(),
                form: FORM.to_owned(),
                repairs: answer.repairs,
            },
        })
    }
}

impl LiveModel for OpenCodePlanner {
    fn model(&self) -> &str {
        &self.server.config().model
    }
}
