//! What the tests share.

use std::time::Duration;

use crate::model::{Script, ScriptedModel};
use kodo_contract::{Intent, decode};
use kodo_planner::{
    Endpoint, LiveConfig, LivePlanner, PlanError, PlanRequest, Planned, Planner, Policy, Secret,
};
use serde_json::{Value, json};

/// A key that must be seen nowhere but in its header.
pub const KEY: &str = "sk-canary-0123456789abcdef";

/// A plan that calls one tool.
pub fn plan_json() -> Value {
    json!({
        "prompt": "Look at ü.",
        "toolCalls": [{"name": "exec", "args": {"argv": ["ls", "-l"], "n": 12_345_678_901_234_567_890_u64}}],
        "responses": [{"role": "assistant", "text": "a } \" { b"}],
        "diffs": [],
    })
}

/// A model that answers every goal with that plan.
pub async fn model() -> ScriptedModel {
    let script = Script::default().otherwise(plan_json());
    ScriptedModel::start(0, script).await.unwrap()
}

/// A configuration that does not wait long for anything.
pub fn config(url: &str) -> LiveConfig {
    LiveConfig {
        endpoint: Endpoint::parse(url, false).unwrap(),
        model: "scripted".to_owned(),
        secret: Some(Secret::new(KEY)),
        deadline: Duration::from_secs(20),
        max_tokens: 1000,
        stream: false,
        first_pause: Duration::from_millis(5),
        policy: Policy {
            allowed_tools: vec!["exec".to_owned()],
            allowed_connectors: Vec::new(),
            max_steps: 4,
            max_bytes: 10_000,
            tools: std::sync::Arc::new(kodo_planner::AnyArguments),
        },
    }
}

pub fn intent() -> Intent {
    decode(&json!({"goal": "g", "inputs": {}, "constraints": {}})).unwrap()
}

/// Asks once.
pub async fn ask(planner: &LivePlanner) -> Result<Planned, PlanError> {
    let request = PlanRequest {
        intent: &intent(),
        seed: 424_242,
        idempotency_key: "run_1/plan",
    };
    let answer = planner.plan(&request).await;
    // Whatever comes of it, the key is not in it.
    let shown = match &answer {
        Ok(planned) => format!("{planned:?}"),
        Err(error) => format!("{error:?} {error}"),
    };
    assert!(!shown.contains(KEY), "{shown}");
    answer
}

/// Both ways to get an answer: whole, and as a stream.
pub fn both_ways(model: &ScriptedModel) -> [LivePlanner; 2] {
    [false, true].map(|stream| {
        LivePlanner::new(LiveConfig {
            stream,
            ..config(&model.url())
        })
    })
}

/// The code of a failure and its sentence.
pub fn failed(answer: Result<Planned, PlanError>) -> (&'static str, String) {
    let error = answer.expect_err("there should be no plan");
    (error.code().as_str(), error.to_string())
}
