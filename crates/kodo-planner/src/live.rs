//! The planner that asks a model, by the API that OpenAI, Ollama, vLLM, llama.cpp and many others speak.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kodo_contract::Plan;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use crate::completion::Completion;
use crate::converse::{self, Judge, Line};
use crate::dialect::{Dialect, Form, Wanted};
use crate::failure::Failure;
use crate::patience::{Patience, final_failure};
use crate::wire::{Outcome, Wire};
use crate::{
    Endpoint, LiveModel, PlanError, PlanRequest, PlanSource, Planned, Planner, Policy, Secret,
};

/// The provider's name in sources and recordings.
const PROVIDER: &str = "openai";

/// What a [`LivePlanner`] needs to know.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// Where the model is.
    pub endpoint: Endpoint,
    /// Its name there.
    pub model: String,
    /// The key, where the provider wants one.
    pub secret: Option<Secret>,
    /// Within which a plan has to be there: retries, repairs and all.
    pub deadline: Duration,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// Whether the answer is asked for in pieces.
    pub stream: bool,
    /// The first pause before a provider that failed is asked again.
    pub first_pause: Duration,
    /// What a plan may ask for.
    pub policy: Policy,
}

/// Asks a model.
///
/// The shape of the answer is asked for by JSON Schema; of a server that does not take that, by a tool that the model
/// is made to call; else by words. What worked is remembered as long as the planner lives. Whatever comes back is
/// validated here, and a wrong plan is shown to the model with what is wrong with it, at most twice.
#[derive(Debug)]
pub struct LivePlanner {
    config: LiveConfig,
    wire: Wire,
    dialect: Mutex<Dialect>,
}

/// A plan, and how it was got.
struct Answer {
    plan: Plan,
    form: Form,
    repairs: u32,
}

impl LivePlanner {
    /// Takes the configuration. Nothing is sent before the first question.
    #[must_use]
    pub fn new(config: LiveConfig) -> Self {
        Self {
            wire: Wire::new(config.endpoint.clone(), config.secret.clone()),
            config,
            dialect: Mutex::new(Dialect::default()),
        }
    }

    async fn answer(&self, request: &PlanRequest<'_>) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.config.deadline;
        let mut call = Call {
            planner: self,
            request,
            deadline,
            dialect: *self.dialect.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let judge = Judge {
            policy: &self.config.policy,
            secret: self.wire.secret(),
        };
        let conversation = judge.converse(&mut call, request);
        let reached = converse::by(deadline, self.config.deadline, conversation).await?;
        // What worked is where the next plan begins.
        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner) = call.dialect;
        Ok(Answer {
            plan: reached.plan,
            form: call.dialect.form,
            repairs: reached.repairs,
        })
    }
}

/// One plan's calls.
struct Call<'a> {
    planner: &'a LivePlanner,
    request: &'a PlanRequest<'a>,
    deadline: Instant,
    dialect: Dialect,
}

#[async_trait]
impl Line for Call<'_> {
    async fn ask(&mut self, messages: &[Value], round: u32) -> Result<String, Failure> {
        let key = format!("{}/{round}", self.request.idempotency_key);
        let completion = self.send(messages, &key).await?;
        let (most, secret) = (self.planner.config.max_tokens, self.planner.wire.secret());
        completion.whole(most, secret)?;
        Ok(completion.into_text())
    }

    fn ask_otherwise(&mut self) -> bool {
        match self.dialect.with_next_form() {
            Some(next) => {
                self.dialect = next;
                true
            }
            None => false,
        }
    }
}

impl Call<'_> {
    /// Sends the messages until there is an answer: in another dialect where the server does not take this one, and
    /// after a pause where it has too much to do or fails.
    async fn send(&mut self, messages: &[Value], key: &str) -> Result<Completion, Failure> {
        let config = &self.planner.config;
        let wanted = Wanted {
            model: &config.model,
            max_tokens: config.max_tokens,
            seed: self.request.seed,
            stream: config.stream,
        };
        let mut patience = Patience::new(config.first_pause, self.deadline);
        loop {
            let body = self.dialect.body(wanted, messages);
            // Another body is another request, also to whoever remembers the key.
            let key = format!("{key}/{}", self.dialect.form.as_str());
            let refusal = match self.planner.wire.ask(&body, &key).await? {
                Outcome::Completion(completion) => return Ok(completion),
                Outcome::Refused(refusal) => refusal,
            };
            let status = refusal.status;
            if status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY {
                match self
                    .dialect
                    .after_rejection(&refusal.parameter, &refusal.message)
                {
                    Some(next) => self.dialect = next,
                    None => return Err(final_failure(&refusal, 0)),
                }
                continue;
            }
            patience.after(&refusal, &key).await?;
        }
    }
}

#[async_trait]
impl Planner for LivePlanner {
    fn name(&self) -> &'static str {
        PROVIDER
    }

    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError> {
        let answer = self.answer(request).await?;
        Ok(Planned {
            plan: answer.plan,
            source: PlanSource::Live {
                provider: PROVIDER.to_owned(),
                model: self.config.model.clone(),
                form: answer.form.as_str().to_owned(),
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
