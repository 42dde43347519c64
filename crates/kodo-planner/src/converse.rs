//! The conversation that ends in a plan, whoever carries it to the model: ask, validate, show what is wrong.

use async_trait::async_trait;
use kodo_contract::{Intent, Plan, decode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::extract::object_in;
use crate::failure::{Failure, FailureCode};
use crate::told::told;
use crate::{PlanRequest, Policy, Secret, prompt};

/// How often a model is shown what is wrong with its plan.
const MAX_REPAIRS: u32 = 2;

/// How much of a list of violations a reason holds, in characters.
const SHOWN_REASON: usize = 1000;

/// What carries messages to a model and its answer back.
#[async_trait]
pub(crate) trait Line: Send {
    /// The model's answer to these messages, in round number `round`, from 1.
    async fn ask(&mut self, messages: &[Value], round: u32) -> Result<String, Failure>;

    /// Whether the model can be asked in yet another way, after it answered with no object at all. From here on it is.
    fn ask_otherwise(&mut self) -> bool {
        false
    }
}

/// Whose plan is looked at, and by what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    /// What a plan may ask for.
    pub(crate) policy: &'a Policy,
    /// The provider's key, which must not be in a plan.
    pub(crate) secret: Option<&'a Secret>,
}

/// A plan, and how often it had to be repaired.
pub(crate) struct Reached {
    pub(crate) plan: Plan,
    pub(crate) repairs: u32,
}

impl Judge<'_> {
    /// Asks, and has the answer repaired, until there is a plan.
    pub(crate) async fn converse(
        self,
        line: &mut dyn Line,
        request: &PlanRequest<'_>,
    ) -> Result<Reached, Failure> {
        self.policy.admits(request.intent)?;
        let mut messages = prompt::messages(request.intent, self.policy);
        let mut repairs = 0;
        let mut round = 0_u32;
        loop {
            round += 1;
            let text = line.ask(&messages, round).await?;
            let violations = match object_in(&text) {
                // Not what was asked for, and no other attempt at it either: the server or the model does not know
                // this form.
                None if line.ask_otherwise() => continue,
                None => vec!["data must be one JSON object, and none was found".to_owned()],
                Some(value) => match self.plan_of(request.intent, &value) {
                    Ok(plan) => {
                        self.check_for_secret(&plan)?;
                        self.policy.allows(request.intent, &plan)?;
                        return Ok(Reached { plan, repairs });
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

    /// The plan that a value is, or everything that is wrong with it.
    fn plan_of(self, intent: &Intent, value: &Value) -> Result<Plan, Vec<String>> {
        let plan: Plan = decode(value).map_err(|invalid| {
            let violations = invalid.violations.iter();
            violations
                .map(|violation| told(&violation.to_string(), self.secret))
                .collect::<Vec<_>>()
        })?;
        let faults = self.policy.faults(intent, &plan);
        if faults.is_empty() {
            return Ok(plan);
        }
        let faults = faults.iter().map(|fault| told(fault, self.secret));
        Err(faults.collect())
    }

    /// The provider has our key; it has no business in a plan, from where it would go to rows, logs and fixtures.
    fn check_for_secret(self, plan: &Plan) -> Result<(), Failure> {
        let Some(secret) = self.secret else {
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

/// What comes before the deadline, or the failure that it did not.
pub(crate) async fn by<T>(
    deadline: Instant,
    whole: std::time::Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| {
        Err(Failure::new(
            FailureCode::PlannerDeadline,
            format!(
                "no plan came within {} ms; OC_DEADLINE_MS says how long it may take",
                whole.as_millis()
            ),
        ))
    })
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
