//! The planner that asks a model through OpenCode.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::conversation::{Answer, Conversation, until};
use crate::failure::Failure;
use crate::{LiveModel, PlanError, PlanRequest, PlanSource, Planned, Planner};

use super::config::{OpenCodeConfig, OpenCodePlace};
use super::running::unavailable;
use super::server::Server;
use super::session::Session;

/// The provider's name in sources and recordings.
const PROVIDER: &str = "opencode";

/// How the shape of an answer is requested: OpenCode makes the model call a tool.
const FORM: &str = "tool_call";

/// How often a plan is begun. It is begun again if OpenCode ends in the middle of it.
const MAX_ATTEMPTS: u32 = 2;

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
        let allowed = config.deadline;
        let deadline = Instant::now() + allowed;
        let _permit = until(deadline, allowed, self.server.permit()).await?;
        let conversation = Conversation {
            policy: &config.policy,
            secret: match &config.place {
                OpenCodePlace::Started { secret, .. } => secret.as_ref(),
                OpenCodePlace::Attached { password, .. } => password.as_ref(),
            },
        };
        let mut attempt = 1;
        loop {
            let opened = until(deadline, allowed, async {
                let running = self.server.running().await?;
                let session =
                    Session::open(Arc::clone(&running), request, deadline, config.max_tokens);
                Ok(session.await.map_err(|error| {
                    running.retire();
                    unavailable(&error.to_string())
                }))
            })
            .await?;
            let (answer, lost) = match opened {
                Ok(mut session) => {
                    let answer = conversation.run(&mut session, request);
                    let answer = until(deadline, allowed, answer).await;
                    let lost = session.lost;
                    session.close().await;
                    (answer, lost)
                }
                Err(failure) => (Err(failure), true),
            };
            if answer.is_ok() || !lost || attempt == MAX_ATTEMPTS {
                return answer;
            }
            attempt += 1;
        }
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
