//! The plan's JSON Schema as a model's server gets it: with the tools that the plan may call, and what their arguments are.
//!
//! Servers hold a model to it token by token, so what it leaves open a model may fill with anything.

use kodo_contract::{Boundary, Intent, Plan};
use serde_json::{Value, json};

use crate::Policy;

/// The schema of a plan for this intent. It has no names of the document, and the item type of each array, which some
/// servers require; and no keyword that common servers ignore or reject.
pub(crate) fn plan_schema(intent: &Intent, policy: &Policy) -> Value {
    let mut schema = Plan::schema().document().clone();
    if let Some(members) = schema.as_object_mut() {
        members.remove("$schema");
        members.remove("title");
        members.remove("description");
    }
    schema["properties"]["responses"]["items"] = json!({"type": "object"});
    schema["properties"]["diffs"]["items"] = json!({"type": "object"});
    let call = &mut schema["properties"]["toolCalls"]["items"];
    let mut calls = Vec::new();
    let mut described = Vec::new();
    for (name, arguments) in policy.tools.arguments(intent) {
        if policy.allows_tool(intent, &name) {
            let mut one = call.clone();
            one["properties"]["name"] = json!({"type": "string", "enum": [name]});
            one["properties"]["args"] = arguments;
            calls.push(one);
            described.push(name);
        }
    }
    if let Some(name) = policy.other_tools(intent, &described) {
        let mut any = call.take();
        if !name.is_empty() {
            any["properties"]["name"] = json!({"type": "string", "enum": name});
        }
        calls.push(any);
    }
    match calls.len() {
        // No tool may be called at all.
        0 => {}
        1 => *call = calls.remove(0),
        _ => *call = json!({"anyOf": calls}),
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kodo_contract::{ToolCall, decode};

    use super::*;
    use crate::{AnyArguments, Tools};

    #[derive(Debug)]
    struct Exec;

    impl Tools for Exec {
        fn fault(&self, _: &Intent, _: &ToolCall) -> Option<String> {
            None
        }

        fn arguments(&self, _: &Intent) -> Vec<(String, Value)> {
            vec![(
                "exec".to_owned(),
                json!({"type": "object", "required": ["argv"]}),
            )]
        }
    }

    fn calls(tools: Arc<dyn Tools>, allowed: &[&str], connectors: &[&str]) -> Value {
        let intent =
            json!({"goal": "g", "inputs": {}, "constraints": {}, "connectors": connectors});
        let policy = Policy {
            allowed_tools: allowed.iter().map(|&it| it.to_owned()).collect(),
            allowed_connectors: vec!["*".to_owned()],
            max_steps: 2,
            max_bytes: 1000,
            tools,
        };
        let mut schema = plan_schema(&decode(&intent).unwrap(), &policy);
        schema["properties"]["toolCalls"]["items"].take()
    }

    #[test]
    fn the_one_tool_that_may_be_called_is_named_with_its_arguments() {
        let exec = calls(Arc::new(Exec), &["exec"], &[]);
        assert_eq!(exec["properties"]["name"]["enum"], json!(["exec"]));
        assert_eq!(exec["properties"]["args"]["required"], json!(["argv"]));
        assert_eq!(exec["required"], json!(["name", "args"]));
        let any = calls(Arc::new(AnyArguments), &["exec"], &[]);
        assert_eq!(any["properties"]["name"]["enum"], json!(["exec"]));
        assert_eq!(any["properties"]["args"], json!({"type": "object"}));
    }

    #[test]
    fn other_tools_are_alternatives() {
        let both = calls(Arc::new(Exec), &["exec", "make"], &[]);
        assert_eq!(
            both["anyOf"][0]["properties"]["name"]["enum"],
            json!(["exec"])
        );
        assert_eq!(
            both["anyOf"][1]["properties"]["name"]["enum"],
            json!(["make"])
        );
        for (allowed, connectors) in [
            (&["exec", "repo.*"][..], &[][..]),
            (&["*"], &[]),
            (&["exec"], &["mail"]),
        ] {
            let open = calls(Arc::new(Exec), allowed, connectors);
            assert_eq!(
                open["anyOf"][0]["properties"]["name"]["enum"],
                json!(["exec"])
            );
            assert_eq!(open["anyOf"][1]["properties"]["name"].get("enum"), None);
        }
        let none = calls(Arc::new(Exec), &["make"], &[]);
        assert_eq!(none["properties"]["name"]["enum"], json!(["make"]));
    }
}
