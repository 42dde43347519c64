//! One plan's session at OpenCode. However the plan ends, what goes on for it is aborted and the session deleted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::PlanRequest;
use crate::converse::Line;
use crate::dialect::wire_schema;
use crate::failure::{Failure, FailureCode};

use super::answer::text_of;
use super::api::{ApiError, Question};
use super::gate::{Purpose, Ticket};
use super::server::Running;

/// How long tidying up may take.
const TIDY_TIMEOUT: Duration = Duration::from_secs(5);

/// A session.
pub(crate) struct Session {
    running: Arc<Running>,
    id: String,
    /// Ends what goes on with the model, where the way there is ours.
    ticket: Option<Ticket>,
    max_tokens: u32,
    /// Whether OpenCode is still at work on an answer.
    busy: bool,
    tidied: bool,
    /// Whether OpenCode went away in the middle of it.
    pub(crate) lost: bool,
}

impl Session {
    pub(crate) async fn open(
        running: Arc<Running>,
        request: &PlanRequest<'_>,
        deadline: Instant,
        max_tokens: u32,
    ) -> Result<Self, ApiError> {
        let id = running.api.create().await?;
        let purpose = Purpose::Plan {
            key: request.idempotency_key.to_owned(),
            seed: request.seed,
            deadline,
        };
        let ticket = running.gate.as_ref().map(|gate| gate.admit(&id, purpose));
        Ok(Self {
            running,
            id,
            ticket,
            max_tokens,
            busy: false,
            tidied: false,
            lost: false,
        })
    }

    /// Tidies up, and waits for it: a program that ends after its one plan must not leave its session behind.
    pub(crate) async fn close(mut self) {
        if let Some(tidy) = self.tidy() {
            let _ = tidy.await;
        }
    }

    fn tidy(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        // The model first: its connection is closed here, whatever OpenCode does.
        self.ticket = None;
        if std::mem::replace(&mut self.tidied, true) || self.lost {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (running, id, busy) = (Arc::clone(&self.running), self.id.clone(), self.busy);
        Some(runtime.spawn(async move {
            let tidy = async {
                if busy {
                    running.api.abort(&id).await?;
                }
                running.api.delete(&id).await
            };
            let reason = match timeout(TIDY_TIMEOUT, tidy).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => ApiError::Silent,
            };
            // One that does not even do that is no place for the next plan.
            tracing::warn!(error = %reason, "a session of OpenCode's could not be ended; it is started anew");
            running.give_up();
        }))
    }

    fn failed(&mut self, error: ApiError) -> Failure {
        match error {
            ApiError::Gone(_) => {
                self.lost = true;
                self.running.give_up();
                Failure::new(
                    FailureCode::PlannerUnavailable,
                    "OpenCode went away in the middle of the plan",
                )
            }
            ApiError::TooLarge => {
                Failure::new(FailureCode::PlannerAnswerTooLarge, error.to_string())
            }
            ApiError::Unauthorized => {
                Failure::new(FailureCode::PlannerUnauthorized, error.to_string())
            }
            ApiError::Status(..) => Failure::new(
                FailureCode::PlannerRejected,
                format!("{error}; see OC_MODEL"),
            ),
            other => Failure::new(FailureCode::PlannerUnavailable, other.to_string()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tidy();
    }
}

#[async_trait]
impl Line for Session {
    /// OpenCode keeps the conversation itself: it is given the last message alone.
    async fn ask(&mut self, messages: &[Value], _round: u32) -> Result<String, Failure> {
        let content = |message: Option<&Value>| {
            let content = message.and_then(|it| it["content"].as_str());
            content.unwrap_or_default().to_owned()
        };
        let (system, text) = (content(messages.first()), content(messages.last()));
        let running = Arc::clone(&self.running);
        let question = Question {
            provider: &running.provider,
            model: &running.model,
            system: &system,
            text: &text,
            schema: wire_schema(),
        };
        self.busy = true;
        let prompt = running.api.prompt(&self.id, &question);
        let message = match &mut self.ticket {
            None => prompt.await,
            Some(ticket) => tokio::select! {
                // What the gate knows is why the answer is what it is.
                biased;
                failure = ticket.failed() => return Err(failure),
                message = prompt => message,
            },
        };
        let message = message.map_err(|error| self.failed(error))?;
        self.busy = false;
        let secret = running.gate.as_ref().and_then(|gate| gate.secret());
        text_of(&message, self.max_tokens, secret)
    }
}
