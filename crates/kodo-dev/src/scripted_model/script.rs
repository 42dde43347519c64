//! A script in a file: which plan answers which goal.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Body, Choice, error};

/// Which JSON answers which goal.
///
/// The file is `{"plans": {"<goal>": <plan>}, "otherwise": <plan>}`; without `otherwise`, a goal that is not in the
/// script is answered with HTTP 404.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    plans: BTreeMap<String, Value>,
    otherwise: Option<Value>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// If the file cannot be read or is no script.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("script {name} cannot be read"))?;
        serde_json::from_str(&text).with_context(|| format!("script {name} is invalid"))
    }

    /// The same, with a plan for a goal.
    #[must_use]
    pub fn with(mut self, goal: &str, plan: Value) -> Self {
        self.plans.insert(goal.to_owned(), plan);
        self
    }

    /// The same, with a plan for every other goal.
    #[must_use]
    pub fn otherwise(mut self, plan: Value) -> Self {
        self.otherwise = Some(plan);
        self
    }

    /// What answers a request: the plan of the goal of the intent in its first user message.
    pub fn answer(&self, request: &Value) -> Response<Body> {
        match self.plan(request) {
            Some(plan) => Choice::json(plan, request).whole(request),
            None => error(
                StatusCode::NOT_FOUND,
                "the script has no answer for this goal",
            ),
        }
    }

    fn plan(&self, request: &Value) -> Option<&Value> {
        let goal = goal_of(request).unwrap_or_default();
        self.plans.get(&goal).or(self.otherwise.as_ref())
    }
}

fn goal_of(request: &Value) -> Option<String> {
    let messages = request["messages"].as_array()?;
    let user = messages.iter().find(|message| message["role"] == "user")?;
    let document: Value = serde_json::from_str(user["content"].as_str()?).ok()?;
    document["intent"]["goal"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_goal_finds_its_plan() {
        let script: Script = serde_json::from_str(r#"{"plans": {"a": {"p": 1}}}"#).unwrap();
        let request = |goal: &str| {
            let content = json!({"intent": {"goal": goal}}).to_string();
            json!({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": content}]})
        };
        assert_eq!(script.plan(&request("a")), Some(&json!({"p": 1})));
        assert_eq!(script.plan(&request("b")), None);
        let open = script.otherwise(json!(2));
        assert_eq!(open.plan(&request("b")), Some(&json!(2)));
        assert_eq!(open.plan(&json!({})), Some(&json!(2)));
    }

    #[test]
    fn what_is_no_script_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"plans": []}"#,
            r#"{"plans": {}, "x": 1}"#,
        ] {
            assert!(serde_json::from_str::<Script>(text).is_err(), "{text}");
        }
    }
}
