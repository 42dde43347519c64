//! How Ajv 8 words what a keyword demands.

use serde_json::{Value, json};

/// `params` and `message` as Ajv words them, for the keywords that our schemas use; a test makes
/// sure of that, too.
pub(crate) fn explain(keyword: &str, demanded: &Value) -> (Value, String) {
    let limit = || json!({"limit": demanded});
    match keyword {
        "type" => {
            let names = match demanded {
                Value::Array(names) => {
                    let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
                    names.join(",")
                }
                name => name.as_str().unwrap_or_default().to_owned(),
            };
            (json!({"type": demanded}), format!("must be {names}"))
        }
        "minLength" => (
            limit(),
            format!("must NOT have fewer than {demanded} characters"),
        ),
        "maxLength" => (
            limit(),
            format!("must NOT have more than {demanded} characters"),
        ),
        "maxItems" => (limit(), format!("must NOT have more than {demanded} items")),
        "minimum" => (
            json!({"comparison": ">=", "limit": demanded}),
            format!("must be >= {demanded}"),
        ),
        "maximum" => (
            json!({"comparison": "<=", "limit": demanded}),
            format!("must be <= {demanded}"),
        ),
        "pattern" => {
            let pattern = demanded.as_str().unwrap_or_default();
            (
                json!({"pattern": pattern}),
                format!("must match pattern \"{pattern}\""),
            )
        }
        "enum" => (
            json!({"allowedValues": demanded}),
            "must be equal to one of the allowed values".to_owned(),
        ),
        "const" => (
            json!({"allowedValue": demanded}),
            "must be equal to constant".to_owned(),
        ),
        other => (
            json!({}),
            format!("must pass \"{other}\" keyword validation"),
        ),
    }
}
