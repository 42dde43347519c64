//! The port: what every planner can be asked, and what it answers.

use async_trait::async_trait;
use kodo_contract::{Intent, Plan};
use serde::{Deserialize, Serialize};

use crate::PlanError;

/// Something that makes a plan of an intent.
#[async_trait]
pub trait Planner: Send + Sync {
    /// The name of the provider, for logs and for people.
    fn name(&self) -> &'static str;

    /// Makes a plan.
    ///
    /// It may be asked again with the same idempotency key, after a crash or on a retry, and must
    /// then not do twice what costs or can be seen outside.
    ///
    /// # Errors
    ///
    /// [`PlanError`]. Whatever asking again could help with, the planner has asked again for before it gives up.
    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError>;
}

/// A planner that asks a model: what it answers can be recorded.
pub trait LiveModel: Planner {
    /// The model's name at its provider.
    fn model(&self) -> &str;
}

/// What a planner is asked.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// What is wanted.
    pub intent: &'a Intent,
    /// The seed of everything random.
    pub seed: u64,
    /// `run_id/step_id`: the same for every attempt at one step of one run.
    pub idempotency_key: &'a str,
}

/// A plan, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Planned {
    /// The plan; valid as [`encode`](kodo_contract::encode) understands it.
    pub plan: Plan,
    /// Where it came from.
    pub source: PlanSource,
}

/// Where a plan came from. A run keeps this, so that nobody takes the default for an answer to
/// their intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum PlanSource {
    /// The fixture that was recorded for this very intent and seed.
    Fixture {
        /// Its key.
        key: String,
    },
    /// The default fixture, since there was none with this key.
    DefaultFixture {
        /// The key that was looked for.
        key: String,
    },
    /// A model, just now.
    Live {
        /// The kind of provider.
        provider: String,
        /// The model's name there.
        model: String,
        /// How the shape of the answer was asked for: `json_schema`, `tool_call` or `text`.
        form: String,
        /// How often the model was shown what was wrong with its plan.
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
