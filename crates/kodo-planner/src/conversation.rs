//! The conversation with a model that ends in a valid plan, independent of the provider: ask, validate, ask for repairs.

use std::time::Duration;

use async_trait::async_trait;
use kodo_contract::{ErrorCode, Intent, Plan, decode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::extract::object_in;
use crate::failure::Failure;
use crate::sanitize::sanitized;
use crate::{PlanRequest, Policy, Secret, prompt};

/// How often a model is asked to repair one plan.
const MAX_REPAIRS: u32 = 2;

/// How many characters of the list of violations the failure contains.
const SHOWN_REASON: usize = 1000;

/// Sends messages to a model and returns its answer.
#[async_trait]
pub(crate) trait Channel: Send {
    /// Returns the model's answer to these messages. `round` counts from 1.
    async fn ask(&mut self, messages: &[Value], round: u32) -> Result<String, Failure>;

    /// Switches to the next way of asking for a structured answer. Returns false if there is none left.
    fn use_next_form(&mut self) -> bool {
        false
    }
}

/// What plans are checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversation<'a> {
    /// What a plan may ask for.
    pub(crate) policy: &'a Policy,
    /// The provider's key, which must not be in a plan.
    pub(crate) secret: Option<&'a Secret>,
}

/// A valid plan, and how many repairs it took.
pub(crate) struct Answer {
    pub(crate) plan: Plan,
    pub(crate) repairs: u32,
}

impl Conversation<'_> {
    /// Asks for a plan, and for repairs until it is valid.
    pub(crate) async fn run(
        self,
        channel: &mut dyn Channel,
        request: &PlanRequest<'_>,
    ) -> Result<Answer, Failure> {
        self.policy.admits(request.intent)?;
        let mut messages = prompt::messages(request.intent, self.policy);
        let mut repairs = 0;
        let mut round = 0_u32;
        loop {
            round += 1;
            let text = channel.ask(&messages, round).await?;
            let violations = match object_in(&text) {
                // The server or the model ignores this form of structured answer.
                None if channel.use_next_form() => continue,
                None => vec!["data must be one JSON object, and none was found".to_owned()],
                Some(value) => match self.plan_of(request.intent, &value) {
                    Ok(plan) => {
                        self.check_for_secret(&plan)?;
                        self.policy.allows(request.intent, &plan)?;
                        return Ok(Answer { plan, repairs });
                    }
                    Err(violations) => violations,
                },
            };
            if repairs == MAX_REPAIRS {
                let reason = violations.join("; ");
                let reason: String = reason.chars().take(SHOWN_REASON).collect();
                return Err(Failure::new(
                    ErrorCode::PlanInvalid,
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

    /// The plan in this value, or everything that is wrong with it.
    fn plan_of(self, intent: &Intent, value: &Value) -> Result<Plan, Vec<String>> {
        let shown = |text: String| sanitized(&text, self.secret);
        let plan: Plan = decode(value).map_err(|invalid| {
            let violations = invalid.violations.iter();
            violations
                .map(|it| shown(it.to_string()))
                .collect::<Vec<_>>()
        })?;
        let faults = self.policy.faults(intent, &plan);
        if faults.is_empty() {
            return Ok(plan);
        }
        Err(faults.into_iter().map(shown).collect())
    }

    /// A provider knows our key. A plan that contains it would carry it into rows, logs and fixtures.
    fn check_for_secret(self, plan: &Plan) -> Result<(), Failure> {
        let Some(secret) = self.secret else {
            return Ok(());
        };
        let value = serde_json::to_value(plan).unwrap_or_default();
        if !contains(&value, secret) {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::PlanRefused,
            "the plan contains the provider's key (OC_API_KEY); nothing of it was run or stored; give the provider another key",
        ))
    }
}

/// Runs `work` until the deadline. `allowed` is the whole time that a plan may take, for the failure's text.
pub(crate) async fn until<T>(
    deadline: Instant,
    allowed: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| {
        Err(Failure::new(
            ErrorCode::PlannerDeadline,
            format!(
                "no plan came within {} ms; OC_DEADLINE_MS says how long it may take",
                allowed.as_millis()
            ),
        ))
    })
}

/// Whether a key or a string anywhere in the value contains the secret.
fn contains(value: &Value, secret: &Secret) -> bool {
    match value {
        Value::String(text) => secret.is_in(text),
        Value::Array(items) => items.iter().any(|item| contains(item, secret)),
        Value::Object(members) => members
            .iter()
            .any(|(key, member)| secret.is_in(key) || contains(member, secret)),
        _ => false,
    }
}
