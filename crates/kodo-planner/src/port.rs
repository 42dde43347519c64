//! The port of the planner: the question, and the answer.

use async_trait::async_trait;
use kodo_contract::{Intent, Plan};
use serde::{Deserialize, Serialize};

use crate::PlanError;

/// Makes a plan of an intent.
#[async_trait]
pub trait Planner: Send + Sync {
    /// The name of the provider, for logs and for people.
    fn name(&self) -> &'static str;

    /// Makes a plan.
    ///
    /// After a crash or on a retry it is asked again with the same idempotency key. It must then not repeat what costs
    /// money or has effects outside.
    ///
    /// # Errors
    ///
    /// [`PlanError`]. The planner has already retried what a retry can help with.
    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError>;
}

/// A planner that asks a model, so that its answers can be recorded.
pub trait LiveModel: Planner {
    /// The model's name at its provider.
    fn model(&self) -> &str;
}

/// The question to a planner.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// The intent that the plan has to reach.
    pub intent: &'a Intent,
    /// The seed of the run. A model gets it, if its server accepts one.
    pub seed: u64,
    /// `run_id/step_id`: the same for every attempt at one step of one run.
    pub idempotency_key: &'a str,
}

/// A plan, and its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Planned {
    /// The plan, valid by its schema.
    pub plan: Plan,
    /// Its source.
    pub source: PlanSource,
}

/// The source of a plan. The run stores it, so that nobody takes the default fixture for an answer to their intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum PlanSource {
    /// The fixture that was recorded for this intent and seed.
    Fixture {
        /// Its key.
        key: String,
    },
    /// The default fixture, because there was none with this key.
    DefaultFixture {
        /// The key that was looked for.
        key: String,
    },
    /// A model that was asked now.
    Live {
        /// The kind of provider.
        provider: String,
        /// The model's name there.
        model: String,
        /// How the shape of the answer was requested: `json_schema`, `tool_call` or `text`.
        form: String,
        /// How often the model was asked to repair its plan.
        repairs: u32,
    },
}

#[cfg(test)]
mod tests {
    use kodo_contract::parse_json;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_plan_and_its_source_survive_a_checkpoint_with_exact_numbers() {
        let text = concat!(
            r#"{"plan":{"prompt":"p","toolCalls":[{"name":"t","args":{"n":12345678901234567890}}],"#,
            r#""responses":[1.10],"diffs":[]},"source":{"kind":"defaultFixture","key":"k"}}"#
        );
        let value: Value = parse_json(text.as_bytes()).unwrap();
        let planned: Planned = serde_json::from_value(value).unwrap();
        let key = "k".to_owned();
        assert_eq!(planned.source, PlanSource::DefaultFixture { key });
        assert_eq!(serde_json::to_string(&planned).unwrap(), text);
    }
}
