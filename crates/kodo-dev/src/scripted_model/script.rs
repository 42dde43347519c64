//! A script in a file: which plan answers which goal.

use std::path::Path;

use serde_json::Value;

use crate::scripted_model::ScriptError;

/// Which JSON answers which goal.
///
/// The file is `{"plans": {"<goal>": <plan>}, "otherwise": <plan>}`; without `otherwise`, a goal that is not in the
/// script is answered with HTTP 404.
#[derive(Clone, Debug, Default)]
pub struct Script {
    plans: Vec<(String, Value)>,
    otherwise: Option<Value>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// [`ScriptError::Unreadable`] and [`ScriptError::Invalid`].
    pub fn read(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScriptError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|reason| ScriptError::Invalid {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let members = value.as_object().ok_or("it is no object")?;
        if let Some(extra) = members
            .keys()
            .find(|key| !["plans", "otherwise"].contains(&key.as_str()))
        {
            return Err(format!("it has a member {extra:?}"));
        }
        let plans = members.get("plans").and_then(Value::as_object);
        Ok(Self {
            plans: plans
                .ok_or("it has no object \"plans\"")?
                .iter()
                .map(|(goal, plan)| (goal.clone(), plan.clone()))
                .collect(),
            otherwise: members.get("otherwise").cloned(),
        })
    }

    /// The same, with a plan for a goal.
    #[must_use]
    pub fn with(mut self, goal: &str, plan: Value) -> Self {
        self.plans.push((goal.to_owned(), plan));
        self
    }

    /// The same, with a plan for every other goal.
    #[must_use]
    pub fn otherwise(mut self, plan: Value) -> Self {
        self.otherwise = Some(plan);
        self
    }

    /// What answers a request: by the goal of the intent in its first user message.
    pub(crate) fn answer(&self, request: &Value) -> Option<&Value> {
        let goal = goal_of(request).unwrap_or_default();
        self.plans
            .iter()
            .find(|(it, _)| *it == goal)
            .map(|(_, plan)| plan)
            .or(self.otherwise.as_ref())
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
        let script = Script::parse(r#"{"plans": {"a": {"p": 1}}}"#).unwrap();
        let request = |goal: &str| {
            let content = json!({"intent": {"goal": goal}}).to_string();
            json!({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": content}]})
        };
        assert_eq!(script.answer(&request("a")), Some(&json!({"p": 1})));
        assert_eq!(script.answer(&request("b")), None);
        let open = script.otherwise(json!(2));
        assert_eq!(open.answer(&request("b")), Some(&json!(2)));
        assert_eq!(open.answer(&json!({})), Some(&json!(2)));
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
            assert!(Script::parse(text).is_err(), "{text}");
        }
    }
}
