//! The JSON Schema of the arguments of [`EXEC_TOOL`](crate::EXEC_TOOL), as it is sent to a model.

use serde_json::{Map, Value, json};

use crate::Limits;

/// The schema of the arguments in a plan that may use these secrets. A server can hold a model to it token by token, so it
/// has no keyword that common servers ignore or reject; what it cannot say is checked by
/// [`call_fault`](crate::call_fault).
#[must_use]
pub fn exec_schema(granted: &[String]) -> Value {
    let text = || json!({"type": "string"});
    let object = |required: &[&str], properties: Value| {
        json!({
            "type": "object", "required": required, "additionalProperties": false, "properties": properties,
        })
    };
    let map = |of: Value| json!({"type": "object", "additionalProperties": of});
    let file = object(
        &["content"],
        json!({
            "content": text(),
            "encoding": {"type": "string", "enum": ["utf-8", "base64"]},
            "executable": {"type": "boolean"},
        }),
    );
    let limits = serde_json::to_value(Limits::default()).unwrap_or_default();
    let limits = limits.as_object().into_iter().flatten();
    let limits: Map<String, Value> = limits
        .map(|(name, _)| (name.clone(), json!({"type": "integer"})))
        .collect();
    let mut common = json!({
        "files": map(json!({"anyOf": [text(), file]})),
        "env": map(text()),
        "cwd": text(),
        "limits": object(&[], limits.into()),
    });
    if !granted.is_empty() {
        let name = json!({"type": "string", "enum": granted});
        let file = object(&["name", "file"], json!({"name": name, "file": text()}));
        common["secrets"] = json!({"type": "array", "items": {"anyOf": [name, file]}});
    }
    let with = |command: &str, schema: Value| {
        let mut properties = json!({});
        properties[command] = schema;
        for (name, schema) in common.as_object().into_iter().flatten() {
            properties[name] = schema.clone();
        }
        object(&[command], properties)
    };
    let words = json!({"type": "array", "minItems": 1, "items": text()});
    json!({"anyOf": [with("argv", words), with("shell", text())]})
}

#[cfg(test)]
mod tests {
    use kodo_contract::ToolCall;

    use super::*;
    use crate::{EXEC_TOOL, call_fault};

    /// A value that a schema allows, with every property.
    fn example(schema: &Value) -> Value {
        if let Some(words) = schema["enum"].as_array() {
            return words[words.len() - 1].clone();
        }
        if let Some(either) = schema["anyOf"].as_array() {
            return example(&either[either.len() - 1]);
        }
        match schema["type"].as_str().unwrap() {
            "string" => "dGV4dA==".into(),
            "integer" => 7.into(),
            "boolean" => true.into(),
            "array" => json!([example(&schema["items"])]),
            "object" if schema["properties"].is_object() => {
                let properties = schema["properties"].as_object().unwrap().iter();
                let members = properties.map(|(name, schema)| (name.clone(), example(schema)));
                Value::Object(members.collect())
            }
            "object" => json!({"a": example(&schema["additionalProperties"])}),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_the_schema_allows_can_be_carried_out() {
        for granted in [vec![], vec!["KEY".to_owned()]] {
            let schema = exec_schema(&granted);
            for either in schema["anyOf"].as_array().unwrap() {
                let mut args = example(either);
                // Every number has bounds of its own.
                args["limits"] = serde_json::to_value(Limits::default()).unwrap();
                assert_eq!(args["secrets"].is_array(), !granted.is_empty());
                let call = ToolCall {
                    name: EXEC_TOOL.to_owned(),
                    args: args.as_object().unwrap().clone(),
                    ..ToolCall::default()
                };
                assert_eq!(call_fault(&call, &granted, &Limits::most()), None, "{args}");
            }
        }
    }
}
