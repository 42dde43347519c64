//! The planner that asks a model, by the API that OpenAI, Ollama, vLLM, llama.cpp and many others speak.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use crate::conversation::{Answer, Channel, Conversation, until};
use crate::dialect::{Dialect, Form, Parameters};
use crate::failure::Failure;
use crate::retry::Retries;
use crate::wire::Wire;
use crate::{
    Endpoint, LiveModel, PlanError, PlanRequest, PlanSource, Planned, Planner, Policy, Secret,
};

/// The provider's name in sources and recordings.
const PROVIDER: &str = "openai";

/// The configuration of a [`LivePlanner`].
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// Where the model is.
    pub endpoint: Endpoint,
    /// Its name there.
    pub model: String,
    /// The provider's key, if it wants one.
    pub secret: Option<Secret>,
    /// How long a plan may take, with all retries and repairs.
    pub deadline: Duration,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// Whether answers are streamed.
    pub stream: bool,
    /// The first pause before a failed request is sent again.
    pub first_pause: Duration,
    /// What a plan may ask for.
    pub policy: Policy,
}

/// Asks a model.
///
/// The answer's shape is requested by JSON Schema; if the server does not accept that, by a tool that the model must
/// call; otherwise by words. The form that worked is remembered while the planner lives. Every answer is validated here,
/// and the model is asked to repair an invalid plan at most twice.
#[derive(Debug)]
pub struct LivePlanner {
    config: LiveConfig,
    wire: Wire,
    dialect: Mutex<Dialect>,
}

impl LivePlanner {
    /// Takes the configuration. Nothing is sent before the first question.
    #[must_use]
    pub fn new(config: LiveConfig) -> Self {
        Self {
            wire: Wire::new(config.endpoint.clone(), config.secret.clone()),
            config,
            dialect: Mutex::default(),
        }
    }

    fn dialect(&self) -> MutexGuard<'_, Dialect> {
        self.dialect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: &PlanRequest<'_>) -> Result<(Answer, Form), Failure> {
        let deadline = Instant::now() + self.config.deadline;
        let mut call = Call {
            planner: self,
            request,
            deadline,
            dialect: *self.dialect(),
        };
        let conversation = Conversation {
            policy: &self.config.policy,
            secret: self.wire.secret(),
        };
        let answer = conversation.run(&mut call, request);
        let answer = until(deadline, self.config.deadline, answer).await?;
        *self.dialect() = call.dialect;
        Ok((answer, call.dialect.form))
    }
}

/// The requests of one plan.
struct Call<'a> {
    planner: &'a LivePlanner,
    request: &'a PlanRequest<'a>,
    deadline: Instant,
    dialect: Dialect,
}

#[async_trait]
impl Channel for Call<'_> {
    async fn ask(&mut self, messages: &[Value], round: u32) -> Result<String, Failure> {
        let config = &self.planner.config;
        let parameters = Parameters {
            model: &config.model,
            max_tokens: config.max_tokens,
            seed: self.request.seed,
            stream: config.stream,
        };
        let mut retries = Retries::new(config.first_pause, self.deadline);
        loop {
            let body = self.dialect.body(parameters, messages);
            // Another body is another request, also for a provider that remembers the key.
            let form = self.dialect.form.as_str();
            let key = format!("{}/{round}/{form}", self.request.idempotency_key);
            match self.planner.wire.ask(&body, &key).await? {
                Ok(completion) => {
                    completion.check(config.max_tokens, self.planner.wire.secret())?;
                    return Ok(completion.into_text());
                }
                Err(refusal) => {
                    let dialect = &mut self.dialect;
                    retries.prepare(&refusal, &key, dialect, |_| true).await?;
                }
            }
        }
    }

    fn use_next_form(&mut self) -> bool {
        let next = self.dialect.with_next_form();
        self.dialect = next.unwrap_or(self.dialect);
        next.is_some()
    }
}

#[async_trait]
impl Planner for LivePlanner {
    fn name(&self) -> &'static str {
        PROVIDER
    }

    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError> {
        let (answer, form) = self.answer(request).await?;
        Ok(Planned {
            plan: answer.plan,
            source: PlanSource::Live {
                provider: PROVIDER.to_owned(),
                model: self.config.model.clone(),
                form: form.as_str().to_owned(),
                repairs: answer.repairs,
            },
        })
    }
}

impl LiveModel for LivePlanner {
    fn model(&self) -> &str {
        &self.config.model
    }
}
