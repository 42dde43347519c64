//! One plan's session in OpenCode. However the plan ends, the session is aborted and deleted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kodo_contract::ErrorCode;
use serde_json::Value;
use tokio::time::timeout;

use crate::PlanRequest;
use crate::conversation::Channel;
use crate::failure::Failure;
use crate::retry::Time;
use crate::schema::plan_schema;

use super::answer::text_of;
use super::api::{ApiError, Prompt};
use super::config::OpenCodeConfig;
use super::model_proxy::{Grant, Purpose};
use super::running::Running;

/// How long aborting and deleting a session may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A session in OpenCode.
pub(crate) struct Session {
    running: Arc<Running>,
    id: String,
    /// Lets the session's requests reach the model, if they go through our model proxy.
    grant: Option<Grant>,
    max_tokens: u32,
    /// The schema of the plan.
    schema: Value,
    /// Whether OpenCode still works on an answer.
    busy: bool,
    cleaned_up: bool,
    /// Whether the connection to OpenCode broke.
    lost: bool,
}

impl Session {
    pub(crate) async fn open(
        running: Arc<Running>,
        request: &PlanRequest<'_>,
        time: &Arc<Time>,
        config: &OpenCodeConfig,
    ) -> Result<Self, ApiError> {
        let id = running.api.create().await?;
        let purpose = Purpose::Plan {
            key: request.idempotency_key.to_owned(),
            seed: request.seed,
            time: Arc::clone(time),
        };
        let proxy = running.proxy.as_ref();
        let grant = proxy.map(|proxy| proxy.grant(&id, purpose));
        Ok(Self {
            running,
            id,
            grant,
            max_tokens: config.max_tokens,
            schema: plan_schema(request.intent, &config.policy),
            busy: false,
            cleaned_up: false,
            lost: false,
        })
    }

    /// Aborts and deletes the session, and waits for that: a program that exits after one plan must not leave its session
    /// behind.
    pub(crate) async fn close(mut self) {
        if let Some(cleanup) = self.clean_up() {
            let _ = cleanup.await;
        }
    }

    fn clean_up(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        // This closes the connection to the model, whatever OpenCode does.
        self.grant = None;
        if std::mem::replace(&mut self.cleaned_up, true) || self.lost {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (running, id, busy) = (Arc::clone(&self.running), self.id.clone(), self.busy);
        Some(runtime.spawn(async move {
            let cleanup = async {
                if busy {
                    running.api.abort(&id).await?;
                }
                running.api.delete(&id).await
            };
            let reason = match timeout(CLEANUP_TIMEOUT, cleanup).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => ApiError::Timeout,
            };
            tracing::warn!(error = %reason, "OpenCode could not end a session; the next plan starts it again");
            running.retire();
        }))
    }

    fn failed(&mut self, error: ApiError) -> Failure {
        match error {
            ApiError::Unreachable(_) => {
                self.lost = true;
                self.running.retire();
                Failure::passing(
                    ErrorCode::PlannerUnavailable,
                    "OpenCode went away in the middle of the plan",
                )
            }
            ApiError::TooLarge => Failure::new(ErrorCode::PlannerAnswerTooLarge, error.to_string()),
            ApiError::Unauthorized => {
                Failure::new(ErrorCode::PlannerUnauthorized, error.to_string())
            }
            ApiError::Status(status, _) if status < 500 => {
                Failure::new(ErrorCode::PlannerRejected, format!("{error}; see OC_MODEL"))
            }
            ApiError::Invalid(_) => Failure::new(ErrorCode::PlannerUnavailable, error.to_string()),
            ApiError::Status(..) | ApiError::Timeout => {
                Failure::passing(ErrorCode::PlannerUnavailable, error.to_string())
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.clean_up();
    }
}

#[async_trait]
impl Channel for Session {
    /// OpenCode keeps the conversation, so only the last message is sent.
    async fn ask(&mut self, messages: &[Value], _round: u32) -> Result<String, Failure> {
        let content = |message: Option<&Value>| {
            let content = message.and_then(|it| it["content"].as_str());
            content.unwrap_or_default().to_owned()
        };
        let (system, text) = (content(messages.first()), content(messages.last()));
        let running = Arc::clone(&self.running);
        let prompt = Prompt {
            provider: &running.provider,
            model: &running.model,
            system: &system,
            text: &text,
            schema: self.schema.clone(),
        };
        self.busy = true;
        let message = running.api.prompt(&self.id, &prompt);
        let message = match &mut self.grant {
            None => message.await,
            Some(grant) => tokio::select! {
                // The model proxy knows the cause of a bad answer better than OpenCode.
                biased;
                failure = grant.failed() => return Err(failure),
                message = message => message,
            },
        };
        let message = message.map_err(|error| self.failed(error))?;
        self.busy = false;
        let proxy = running.proxy.as_ref();
        let secret = proxy.and_then(|proxy| proxy.secret());
        text_of(&message, self.max_tokens, secret)
    }
}
