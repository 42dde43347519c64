//! The planner that asks a model, by the API that OpenAI, Ollama, vLLM, llama.cpp and many others speak.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::conversation::{Answer, Channel, Conversation};
use crate::dialect::{Dialect, Form, Learned, Parameters};
use crate::failure::Failure;
use crate::refusal::Refusal;
use crate::retry::{Retries, Time};
use crate::schema::plan_schema;
use crate::unanswered::Unanswered;
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
/// call; otherwise by words. What the server says of a form is remembered for a while. Every answer is validated here,
/// and the model is asked to repair an invalid plan at most twice. A request that got no answer is sent again until the
/// deadline, with the same idempotency key.
#[derive(Debug)]
pub struct LivePlanner {
    config: LiveConfig,
    wire: Wire,
    learned: Learned,
}

impl LivePlanner {
    /// Takes the configuration. Nothing is sent before the first question.
    #[must_use]
    pub fn new(config: LiveConfig) -> Self {
        Self {
            wire: Wire::new(config.endpoint.clone(), config.secret.clone()),
            config,
            learned: Learned::default(),
        }
    }

    async fn answer(&self, request: &PlanRequest<'_>) -> Result<(Answer, Form), Failure> {
        let time = Time::of(self.config.deadline);
        let dialect = self.learned.dialect();
        let mut call = Call {
            planner: self,
            request,
            schema: plan_schema(request.intent, &self.config.policy),
            time: &time,
            dialect,
            said: dialect,
            failing: Failing::No,
        };
        let conversation = Conversation {
            policy: &self.config.policy,
            secret: self.wire.secret(),
        };
        let answer = conversation.run(&mut call, request);
        let answer = time.bound(answer).await?;
        match call.failing {
            Failing::Since(_) => self.learned.suspect(call.dialect),
            _ => self.learned.learn(call.said),
        }
        Ok((answer, call.dialect.form))
    }
}

/// The requests of one plan.
struct Call<'a> {
    planner: &'a LivePlanner,
    request: &'a PlanRequest<'a>,
    schema: Value,
    time: &'a Time,
    dialect: Dialect,
    /// The dialect that the server's own words led to.
    said: Dialect,
    failing: Failing,
}

/// Whether the server failed (500) without a word about the cause, which may be the form.
#[derive(Clone, Copy, Debug)]
enum Failing {
    /// It did not.
    No,
    /// It did, in this dialect first. Other forms are tried, each once.
    Since(Dialect),
    /// It did, in every form: that is not the cause.
    Always,
}

impl Call<'_> {
    /// Changes the dialect after a refusal. Returns false if the same request is to be sent again.
    fn adapt(&mut self, refusal: &Refusal) -> bool {
        if let Some(next) = self.dialect.after(refusal) {
            // A form that was left for another reason than the server's words is not given up.
            let form = match self.said.form == self.dialect.form {
                true => next.form,
                false => self.said.form,
            };
            self.said = next.with_form(form);
            self.dialect = next;
            return true;
        }
        if refusal.status != 500 {
            return false;
        }
        let first = match self.failing {
            Failing::No => self.dialect,
            Failing::Since(first) => first,
            Failing::Always => return false,
        };
        match self.dialect.with_next_form() {
            Some(next) => {
                self.failing = Failing::Since(first);
                self.dialect = next;
                true
            }
            None => {
                self.failing = Failing::Always;
                self.dialect = first;
                false
            }
        }
    }
}

#[async_trait]
impl Channel for Call<'_> {
    async fn ask(&mut self, messages: &[Value], round: u32) -> Result<String, Failure> {
        let config = &self.planner.config;
        let secret = self.planner.wire.secret();
        let mut retries = Retries::new(config.first_pause, self.time);
        loop {
            let parameters = Parameters {
                model: &config.model,
                max_tokens: config.max_tokens,
                seed: self.request.seed,
                stream: config.stream,
                schema: &self.schema,
            };
            let body = self.dialect.body(parameters, messages);
            // Another body is another request, also for a provider that remembers the key.
            let dialect = self.dialect.name();
            let key = format!("{}/{round}/{dialect}", self.request.idempotency_key);
            let answer = self.planner.wire.ask(&body, &key).await;
            let answer = answer.and_then(|completion| {
                completion.check(config.max_tokens, secret)?;
                Ok(completion)
            });
            let failure = match answer {
                Ok(completion) => return Ok(completion.into_text()),
                Err(Unanswered::Refused(refusal)) => {
                    if self.adapt(&refusal) {
                        continue;
                    }
                    refusal.failure(retries.count())
                }
                Err(Unanswered::Failed(failure)) => failure,
            };
            retries.wait(failure, &key).await?;
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
