//! What a plan of a model may ask for: tools, connectors, and how much. Checked before anything runs.
//!
//! What is not explicitly allowed is refused. The policy does not apply to fixtures, which somebody has reviewed.

use std::sync::Arc;

use kodo_contract::{ErrorCode, Intent, Plan};

use crate::Tools;
use crate::failure::Failure;

/// What separates a connector from its tool in the name of a tool call: `github:create_issue`.
const CONNECTOR_SEPARATOR: char = ':';

/// The most refused names that a failure lists.
const SHOWN: usize = 8;

/// The limits and permissions of a plan.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The tools that a plan may call: names, or prefixes of names with `*` at the end.
    pub allowed_tools: Vec<String>,
    /// The connectors that an intent may name, and whose tools a plan may then call as `connector:tool`; written
    /// as [`allowed_tools`](Self::allowed_tools) is.
    pub allowed_connectors: Vec<String>,
    /// The most tool calls.
    pub max_steps: usize,
    /// The most bytes of the plan as JSON.
    pub max_bytes: usize,
    /// Checks the arguments of the calls.
    pub tools: Arc<dyn Tools>,
}

impl Policy {
    /// Checks the intent's connectors, before the model is asked.
    pub(crate) fn admits(&self, intent: &Intent) -> Result<(), Failure> {
        let refused = intent
            .connectors
            .iter()
            .flatten()
            .filter(|name| !matches_any(&self.allowed_connectors, name));
        let refused = list(refused.map(String::as_str));
        if refused.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::PlanRefused,
            format!(
                "the intent names connectors that are not allowed: {refused}; OC_ALLOWED_CONNECTORS says which are"
            ),
        ))
    }

    /// Checks the tools that the plan calls.
    pub(crate) fn allows(&self, intent: &Intent, plan: &Plan) -> Result<(), Failure> {
        let refused = plan
            .tool_calls
            .iter()
            .map(|call| call.name.as_str())
            .filter(|name| !self.allows_tool(intent, name));
        let refused = list(refused);
        if refused.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::PlanRefused,
            format!(
                "the plan calls tools that are not allowed: {refused}; nothing of it was run; OC_ALLOWED_TOOLS says \
                 which are, OC_ALLOWED_CONNECTORS and the intent's connectors whose connector:tool may be"
            ),
        ))
    }

    pub(crate) fn allows_tool(&self, intent: &Intent, name: &str) -> bool {
        let Some((connector, tool)) = name.split_once(CONNECTOR_SEPARATOR) else {
            return matches_any(&self.allowed_tools, name);
        };
        let wanted = intent.connectors.iter().flatten().any(|it| it == connector);
        wanted && !tool.is_empty() && matches_any(&self.allowed_connectors, connector)
    }

    /// The tools that a plan may call beside these: their names, or an empty list if they cannot be listed; `None` if
    /// there are none.
    pub(crate) fn other_tools(&self, intent: &Intent, known: &[String]) -> Option<Vec<String>> {
        let others = self
            .allowed_tools
            .iter()
            .filter(|name| !known.contains(name));
        let others: Vec<String> = others.cloned().collect();
        let connected = intent.connectors.iter().flatten().next().is_some();
        if connected || others.iter().any(|name| name.ends_with('*')) {
            return Some(Vec::new());
        }
        (!others.is_empty()).then_some(others)
    }

    /// What the model has to repair in a plan, each as a sentence for it: dependencies that make no sense, too many calls,
    /// too many bytes, arguments that cannot be carried out.
    pub(crate) fn faults(&self, intent: &Intent, plan: &Plan) -> Vec<String> {
        let mut faults: Vec<String> = plan
            .dependencies()
            .err()
            .map(|fault| fault.to_string())
            .into_iter()
            .collect();
        let steps = plan.tool_calls.len();
        if steps > self.max_steps {
            faults.push(format!(
                "data/toolCalls must NOT have more than {} items, it has {steps}",
                self.max_steps
            ));
        }
        // Serializing a plan cannot fail; a plan for which it did would be refused.
        let bytes = serde_json::to_string(plan).map_or(usize::MAX, |text| text.len());
        if bytes > self.max_bytes {
            faults.push(format!(
                "data must NOT be longer than {} bytes of JSON, it has {bytes}",
                self.max_bytes
            ));
        }
        // `allows` refuses the plan for a tool that is not allowed, whatever its arguments.
        let calls = plan.tool_calls.iter().enumerate();
        for (index, call) in calls.filter(|(_, call)| self.allows_tool(intent, &call.name)) {
            if let Some(fault) = self.tools.fault(intent, call) {
                faults.push(format!(
                    "data/toolCalls/{index}/args cannot be carried out: {fault}"
                ));
            }
        }
        faults
    }
}

fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => pattern == name,
        })
}

/// The first distinct names, quoted and escaped, because they are the model's text.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
        if distinct.len() > SHOWN {
            break;
        }
    }
    let mut shown: Vec<String> = distinct
        .iter()
        .take(SHOWN)
        .map(|name| format!("{:?}", name.chars().take(128).collect::<String>()))
        .collect();
    if distinct.len() > SHOWN {
        shown.push("and more".to_owned());
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use kodo_contract::decode;
    use serde_json::json;

    use super::*;
    use crate::AnyArguments;

    fn policy() -> Policy {
        Policy {
            allowed_tools: vec!["exec".into(), "repo.*".into()],
            allowed_connectors: vec!["github".into()],
            max_steps: 2,
            max_bytes: 1000,
            tools: Arc::new(AnyArguments),
        }
    }

    fn intent(connectors: &[&str]) -> Intent {
        decode(&json!({"goal": "g", "inputs": {}, "constraints": {}, "connectors": connectors}))
            .unwrap()
    }

    fn plan(tools: &[&str]) -> Plan {
        let calls: Vec<_> = tools
            .iter()
            .map(|name| json!({"name": name, "args": {}}))
            .collect();
        decode(&json!({"prompt": "p", "toolCalls": calls, "responses": [], "diffs": []})).unwrap()
    }

    fn allows(connectors: &[&str], tools: &[&str]) -> Result<(), String> {
        policy()
            .allows(&intent(connectors), &plan(tools))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_named() {
        assert_eq!(allows(&[], &["exec", "repo.inspect"]), Ok(()));
        assert_eq!(allows(&[], &[]), Ok(()));
        let refused = allows(&[], &["exec", "rm", "exec2", "rm", "repo"]).unwrap_err();
        assert!(
            refused.contains(r#"not allowed: "rm", "exec2", "repo";"#),
            "{refused}"
        );
        assert!(allows(&[], &["EXEC"]).is_err());
    }

    #[test]
    fn a_connector_needs_the_operator_and_the_intent() {
        assert_eq!(allows(&["github"], &["github:issue"]), Ok(()));
        assert!(allows(&[], &["github:issue"]).is_err());
        assert!(allows(&["gitlab"], &["gitlab:issue"]).is_err());
        assert!(allows(&["github"], &["github:"]).is_err());
        assert!(policy().admits(&intent(&["github"])).is_ok());
        let refused = policy().admits(&intent(&["github", "mail"])).unwrap_err();
        assert_eq!(refused.code, ErrorCode::PlanRefused);
        assert!(
            refused.message.contains(r#"not allowed: "mail";"#),
            "{refused}"
        );
    }

    #[test]
    fn a_star_alone_allows_every_tool_and_no_connector() {
        let open = Policy {
            allowed_tools: vec!["*".into()],
            ..policy()
        };
        assert!(open.allows(&intent(&[]), &plan(&["anything"])).is_ok());
        assert!(open.allows(&intent(&[]), &plan(&["mail:send"])).is_err());
    }

    #[test]
    fn too_much_is_said_so_that_a_model_can_do_with_less() {
        assert!(policy().faults(&intent(&[]), &plan(&["a", "b"])).is_empty());
        let faults = policy().faults(&intent(&[]), &plan(&["a", "b", "c"]));
        assert_eq!(
            faults,
            ["data/toolCalls must NOT have more than 2 items, it has 3"]
        );
        let long = "x".repeat(1000);
        let long: Plan =
            decode(&json!({"prompt": long, "toolCalls": [], "responses": [], "diffs": []}))
                .unwrap();
        assert!(
            policy().faults(&intent(&[]), &long)[0]
                .starts_with("data must NOT be longer than 1000 bytes")
        );
    }

    #[test]
    fn a_reason_stays_short_whatever_the_model_thought_of() {
        let names: Vec<String> = (0..200)
            .map(|n| format!("{n}{}", "x\u{1b}".repeat(30)))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let refused = allows(&[], &names).unwrap_err();
        assert!(
            refused.contains("and more;") && refused.len() < 4000,
            "{refused}"
        );
        assert!(!refused.contains('\u{1b}'));
    }
}
