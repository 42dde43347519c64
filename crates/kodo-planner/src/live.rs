//! The planner that asks a model, by the API that OpenAI, Ollama, vLLM, llama.cpp and many others speak.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hyper::StatusCode;
use kodo_contract::{Plan, decode};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::completion::Completion;
use crate::dialect::{Dialect, Form, Wanted};
use crate::extract::object_in;
use crate::failure::{Failure, FailureCode};
use crate::retry::{MAX_RETRIES, backoff};
use crate::told::told;
use crate::wire::{Outcome, Refusal, Wire};
use crate::{
    Endpoint, PlanError, PlanRequest, PlanSource, Planned, Planner, Policy, Secret, prompt,
};

/// How often a model is shown what is wrong with its plan.
const MAX_REPAIRS: u32 = 2;

/// How much of a list of violations a reason holds, in characters.
const SHOWN_REASON: usize = 1000;

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

    /// The model's name at its provider.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.config.model
    }

    async fn answer(&self, request: &PlanRequest<'_>) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.config.deadline;
        match timeout_at(deadline, self.converse(request, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::new(
                FailureCode::PlannerDeadline,
                format!(
                    "no plan came within {} ms; OC_DEADLINE_MS says how long it may take",
                    self.config.deadline.as_millis()
                ),
            )),
        }
    }

    /// Asks, and has the answer repaired, until there is a plan.
    async fn converse(
        &self,
        request: &PlanRequest<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let policy = &self.config.policy;
        policy.admits(request.intent)?;
        let mut messages = prompt::messages(request.intent, policy);
        let mut dialect = *self.dialect.lock().unwrap_or_else(PoisonError::into_inner);
        let mut repairs = 0;
        let mut round = 0_u32;
        loop {
            round += 1;
            let key = format!("{}/{round}", request.idempotency_key);
            let completion = self
                .send(&messages, &mut dialect, request.seed, &key, deadline)
                .await?;
            let text = self.text_of(completion)?;
            let violations = match object_in(&text) {
                // Not what was asked for, and no other attempt at it either: the server or the model does not know
                // this form.
                None => match dialect.with_next_form() {
                    Some(next) => {
                        dialect = next;
                        continue;
                    }
                    None => vec!["data must be one JSON object, and none was found".to_owned()],
                },
                Some(value) => match self.judge(&value) {
                    Ok(plan) => {
                        self.check_for_secret(&plan)?;
                        policy.allows(request.intent, &plan)?;
                        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner) = dialect;
                        let form = dialect.form;
                        return Ok(Answer {
                            plan,
                            form,
                            repairs,
                        });
                    }
                    Err(violations) => violations,
                },
            };
            if repairs == MAX_REPAIRS {
                let reason = violations.join("; ");
                let reason: String = reason.chars().take(SHOWN_REASON).collect();
                return Err(Failure::new(
                    FailureCode::PlanInvalid,
                    format!(
                        "the model's answer is no valid plan, even after it was shown {MAX_REPAIRS} times what is \
                         wrong: {reason}"
                    ),
                ));
            }
            tracing::info!(
                plan.key = request.idempotency_key,
                violations = violations.len(),
                "the model's answer is no valid plan; asking it to repair it"
            );
            repairs += 1;
            messages.extend(prompt::repair(&text, &violations));
        }
    }

    /// Sends the messages until there is an answer: in another dialect where the server does not take this one, and
    /// after a pause where it has too much to do or fails.
    async fn send(
        &self,
        messages: &[Value],
        dialect: &mut Dialect,
        seed: u64,
        key: &str,
        deadline: Instant,
    ) -> Result<Completion, Failure> {
        let wanted = Wanted {
            model: &self.config.model,
            max_tokens: self.config.max_tokens,
            seed,
            stream: self.config.stream,
        };
        let mut retry = 0;
        loop {
            let body = dialect.body(wanted, messages);
            // Another body is another request, also to whoever remembers the key.
            let key = format!("{key}/{}", dialect.form.as_str());
            let refusal = match self.wire.ask(&body, &key).await? {
                Outcome::Completion(completion) => return Ok(completion),
                Outcome::Refused(refusal) => refusal,
            };
            let status = refusal.status;
            if status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY {
                match dialect.after_rejection(&refusal.parameter, &refusal.message) {
                    Some(next) => *dialect = next,
                    None => return Err(final_failure(&refusal, 0)),
                }
                continue;
            }
            let out_of_credit = refusal.code == "insufficient_quota";
            let may_pass = status == StatusCode::TOO_MANY_REQUESTS && !out_of_credit
                || status.is_server_error();
            if !may_pass || retry == MAX_RETRIES {
                return Err(final_failure(&refusal, retry));
            }
            let pause = refusal
                .retry_after
                .unwrap_or_else(|| backoff(self.config.first_pause, retry, &key));
            // A provider may ask for a pause beyond any clock.
            if Instant::now()
                .checked_add(pause)
                .is_none_or(|then| then >= deadline)
            {
                let mut failure = final_failure(&refusal, retry);
                failure.message.push_str(&format!(
                    "; the next try, in {} s, would be beyond the deadline of OC_DEADLINE_MS",
                    pause.as_secs()
                ));
                return Err(failure);
            }
            tracing::warn!(
                status = status.as_u16(),
                retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the provider did not answer; asking again"
            );
            sleep(pause).await;
            retry += 1;
        }
    }

    /// The text in which the plan has to be.
    fn text_of(&self, completion: Completion) -> Result<String, Failure> {
        let fail = |code, message: &str| Err(Failure::new(code, message));
        if !completion.has_choice {
            return fail(
                FailureCode::PlannerAnswerInvalid,
                "the provider's answer is empty: it has no choices",
            );
        }
        if !completion.refusal.trim().is_empty() {
            return Err(Failure::new(
                FailureCode::PlannerDeclined,
                format!(
                    "the model declined: {}",
                    told(&completion.refusal, self.wire.secret())
                ),
            ));
        }
        match completion.finish_reason.as_deref() {
            Some("content_filter") => fail(
                FailureCode::PlannerFiltered,
                "the provider's content filter took the answer",
            ),
            Some("length") => Err(Failure::new(
                FailureCode::PlannerTruncated,
                format!(
                    "the answer was cut off at the limit of {} tokens, or at the end of the model's context; \
                     OC_MAX_TOKENS sets the limit",
                    self.config.max_tokens
                ),
            )),
            _ => Ok(match completion.arguments {
                Some(arguments) if !arguments.trim().is_empty() => arguments,
                _ => completion.content,
            }),
        }
    }

    /// The plan that a value is, or everything that is wrong with it.
    fn judge(&self, value: &Value) -> Result<Plan, Vec<String>> {
        let plan: Plan = decode(value).map_err(|invalid| {
            let violations = invalid.violations.iter();
            violations
                .map(|violation| told(&violation.to_string(), self.wire.secret()))
                .collect::<Vec<_>>()
        })?;
        match self.config.policy.excesses(&plan) {
            excesses if excesses.is_empty() => Ok(plan),
            excesses => Err(excesses),
        }
    }

    /// The provider has our key; it has no business in a plan, from where it would go to rows, logs and fixtures.
    fn check_for_secret(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(secret) = self.wire.secret() else {
            return Ok(());
        };
        let value = serde_json::to_value(plan).unwrap_or_default();
        if !holds(&value, secret) {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::PlanRefused,
            "the plan holds the provider's key (OC_API_KEY); nothing of it was run or kept; give the provider another key",
        ))
    }
}

/// Whether a key or a string anywhere in the value holds the secret.
fn holds(value: &Value, secret: &Secret) -> bool {
    match value {
        Value::String(text) => secret.is_in(text),
        Value::Array(items) => items.iter().any(|item| holds(item, secret)),
        Value::Object(members) => members
            .iter()
            .any(|(key, member)| secret.is_in(key) || holds(member, secret)),
        _ => false,
    }
}

/// The failure that a status means, after so many retries.
fn final_failure(refusal: &Refusal, retries: u32) -> Failure {
    let status = refusal.status;
    let said = match refusal.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let tries = match retries {
        0 => String::new(),
        retries => format!(", {} times", retries + 1),
    };
    let (code, message) = match status {
        // What the provider says here may show a part of the key.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            FailureCode::PlannerUnauthorized,
            format!(
                "the provider does not take the key (HTTP {}); OC_API_KEY or OC_API_KEY_FILE sets it",
                status.as_u16()
            ),
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            FailureCode::PlannerRateLimited,
            format!("the provider wants fewer requests (HTTP 429{tries}){said}"),
        ),
        status if status.is_server_error() => (
            FailureCode::PlannerUnavailable,
            format!(
                "the provider failed (HTTP {}{tries}){said}",
                status.as_u16()
            ),
        ),
        status if status.is_redirection() => (
            FailureCode::PlannerRejected,
            format!(
                "the provider redirects (HTTP {}), which is not followed: set OC_BASE_URL to where it leads",
                status.as_u16()
            ),
        ),
        status => (
            FailureCode::PlannerRejected,
            format!(
                "the provider does not take the request (HTTP {}){said}; see OC_BASE_URL and OC_MODEL",
                status.as_u16()
            ),
        ),
    };
    Failure::new(code, message)
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
