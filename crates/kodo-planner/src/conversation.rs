//! The conversation with a model that ends in a valid plan, independent of the provider: ask, validate, ask for repairs.

use async_trait::async_trait;
use kodo_contract::{ErrorCode, Intent, Plan, decode};
use serde_json::Value;

use crate::extract::{Found, answer_in};
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
        let mut was_empty = false;
        loop {
            round += 1;
            let text = channel.ask(&messages, round).await?;
            // A model may say nothing once, in any form.
            let empty_at_first = text.trim().is_empty() && !std::mem::replace(&mut was_empty, true);
            let violations = match answer_in(&text) {
                // The server or the model ignores this form of structured answer.
                Found::Nothing(_) if !empty_at_first && channel.use_next_form() => {
                    was_empty = false;
                    continue;
                }
                Found::Nothing(reason) | Found::Unclear(reason) => vec![reason.to_owned()],
                Found::Broken(reason) => vec![sanitized(&reason, self.secret)],
                Found::Object(value) => match self.plan_of(request.intent, &value) {
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
