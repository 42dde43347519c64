//! A JSON Schema whose violations read as Ajv 8 reports them, in the order that the contract fixes.

use jsonschema::{
    Draft, ValidationError, Validator,
    error::ValidationErrorKind::{AdditionalProperties, Required},
};
use serde_json::{Value, json};

use crate::{MAX_VIOLATIONS, Violation, shorten::Lists, wording::explain};

/// The compiled schema of a boundary type.
#[derive(Debug)]
pub struct Schema {
    document: Value,
    validator: Validator,
    /// Truncates long arrays before they are validated.
    lists: Lists,
}

/// The schema in the file at `$path`, compiled on first use.
macro_rules! boundary_schema {
    ($path:literal) => {{
        static SCHEMA: std::sync::LazyLock<$crate::Schema> =
            std::sync::LazyLock::new(|| $crate::Schema::compile(include_str!($path)));
        &SCHEMA
    }};
}
pub(crate) use boundary_schema;

/// Where a violation stands among the others: for each level from the root down, a [`Class`] and an
/// index in it.
type Rank = Vec<(Class, usize)>;

/// What comes first on one level of the document.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Required,
    AdditionalProperties,
    OtherKeyword,
    Nested,
}

impl Schema {
    #[expect(
        clippy::expect_used,
        reason = "the schemas are part of the binary, and a test compiles each of them"
    )]
    pub(crate) fn compile(text: &str) -> Self {
        let document = serde_json::from_str(text).expect("an embedded schema is JSON");
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .build(&document)
            .expect("an embedded schema compiles");
        let lists = Lists::compile(&document).expect("each part of an embedded schema compiles");
        Self {
            document,
            validator,
            lists,
        }
    }

    /// The schema itself.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Everything that the schema finds wrong with `value`: `required` in schema order, then
    /// additional properties in the order sent, then the properties in schema order, on every
    /// level. If there are more than [`MAX_VIOLATIONS`], the first of them and
    /// [one that says so](Violation::more).
    #[must_use]
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        let mut violations = self.one_more(value);
        Violation::limit(&mut violations, false);
        violations
    }

    /// The same, not cut off yet: one more than is listed if there are too many.
    pub(crate) fn one_more(&self, value: &Value) -> Vec<Violation> {
        // The common case allocates nothing.
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let shortened = self.lists.shortened(value);
        let errors = self
            .validator
            .iter_errors(shortened.as_ref().unwrap_or(value));
        let mut ranked: Vec<_> = errors.map(|error| (self.rank(&error), error)).collect();
        if ranked.is_empty() {
            // The validator would contradict itself. If it ever did, the value would be refused.
            let (params, message) = explain("schema", &Value::Null);
            return vec![Violation {
                instance_path: String::new(),
                schema_path: "#".to_owned(),
                keyword: "schema".to_owned(),
                params,
                message,
            }];
        }
        ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut violations = Vec::new();
        for (_, error) in &ranked {
            self.translate(error, &mut violations);
            if violations.len() > MAX_VIOLATIONS {
                break;
            }
        }
        violations
    }

    /// Turns one error of the validator into as many violations as Ajv reports for it.
    fn translate(&self, error: &ValidationError<'_>, into: &mut Vec<Violation>) {
        let schema_path = error.schema_path().as_str();
        let (_, keyword) = split(schema_path);
        let mut push = |(params, message): (Value, String)| {
            into.push(Violation {
                instance_path: error.instance_path().as_str().to_owned(),
                schema_path: format!("#{schema_path}"),
                keyword: keyword.to_owned(),
                params,
                message,
            });
        };
        match error.kind() {
            Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let message = format!("must have required property '{name}'");
                push((json!({"missingProperty": name}), message));
            }
            AdditionalProperties { unexpected } => {
                for name in unexpected.iter().take(MAX_VIOLATIONS + 1) {
                    let message = "must NOT have additional properties".to_owned();
                    push((json!({"additionalProperty": name}), message));
                }
            }
            _ => push(explain(keyword, self.demanded(schema_path))),
        }
    }

    /// What the schema says at `schema_path`.
    fn demanded(&self, schema_path: &str) -> &Value {
        self.document.pointer(schema_path).unwrap_or(&Value::Null)
    }

    /// The way from the root to the part of the document that `error` is about, and the keyword's
    /// place there.
    ///
    /// Our schemas descend by `properties` and `items` alone, which a test makes sure of.
    fn rank(&self, error: &ValidationError<'_>) -> Rank {
        let (parent, keyword) = split(error.schema_path().as_str());
        let mut rank = Rank::new();
        let mut schema = &self.document;
        let mut descents = parent.split('/').skip(1);
        let mut tokens = error.instance_path().as_str().split('/').skip(1);
        while let (Some(descent), Some(token)) = (descents.next(), tokens.next()) {
            let mut index = 0;
            schema = &schema[descent];
            if descent == "items" {
                index = token.parse().unwrap_or_default();
            } else if let Some(name) = descents.next() {
                index = key_position(schema, name);
                schema = &schema[name];
            }
            rank.push((Class::Nested, index));
        }
        rank.push(match error.kind() {
            Required { property } => (Class::Required, position(&schema[keyword], property)),
            AdditionalProperties { .. } => (Class::AdditionalProperties, 0),
            _ => (Class::OtherKeyword, key_position(schema, keyword)),
        });
        rank
    }
}

/// The path of a schema, and the keyword in it.
fn split(schema_path: &str) -> (&str, &str) {
    schema_path.rsplit_once('/').unwrap_or(("", schema_path))
}

fn key_position(object: &Value, wanted: &str) -> usize {
    let found = object
        .as_object()
        .and_then(|all| all.keys().position(|it| it == wanted));
    found.unwrap_or_default()
}

fn position(list: &Value, wanted: &Value) -> usize {
    let list = list.as_array();
    let found = list.and_then(|all| all.iter().position(|it| it == wanted));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boundary, Intent, Plan, RunError, RunRequest, RunView, ToolResult};

    fn all() -> [&'static Schema; 6] {
        [
            Intent::schema(),
            RunRequest::schema(),
            RunView::schema(),
            RunError::schema(),
            Plan::schema(),
            ToolResult::schema(),
        ]
    }

    fn check_keywords(schema: &Value) {
        let Value::Object(keywords) = schema else {
            assert_eq!(schema, &Value::Bool(true));
            return;
        };
        for (keyword, demanded) in keywords {
            match keyword.as_str() {
                "$schema" | "title" | "description" | "required" => {}
                "additionalProperties" => assert_eq!(demanded, false),
                "properties" => demanded
                    .as_object()
                    .unwrap()
                    .values()
                    .for_each(check_keywords),
                "items" => check_keywords(demanded),
                other => {
                    let (params, _) = explain(other, demanded);
                    assert_ne!(params, json!({}), "{other} has no words of its own");
                }
            }
        }
        if keywords.contains_key("properties") {
            assert_eq!(keywords["additionalProperties"], false, "{schema}");
        }
    }

    #[test]
    fn every_schema_uses_only_keywords_that_can_be_ranked_and_explained() {
        for schema in all() {
            check_keywords(schema.document());
        }
    }

    #[test]
    fn extra_keys_are_reported_in_the_order_sent_even_where_they_look_like_numbers() {
        let body = json!({"z": 1, "10": 2, "traceId": 3, "9": 4});
        let violations = RunRequest::schema().violations(&body);
        let names: Vec<_> = violations
            .iter()
            .map(|it| it.params["additionalProperty"].as_str())
            .collect();
        assert_eq!(names, [Some("z"), Some("10"), Some("9"), None]);
    }

    #[test]
    fn of_a_body_full_of_mistakes_the_first_are_listed_and_one_says_that_there_are_more() {
        let body = json!({"inputs": {}, "constraints": {}, "connectors": vec![1; 400_000]});
        let violations = Intent::schema().violations(&body);
        assert_eq!(violations.len(), MAX_VIOLATIONS + 1);
        assert_eq!(violations[0].keyword, "required");
        assert_eq!(
            violations[MAX_VIOLATIONS - 1].instance_path,
            format!("/connectors/{}", MAX_VIOLATIONS - 2)
        );
        assert_eq!(violations[MAX_VIOLATIONS], Violation::more(MAX_VIOLATIONS));
        let keys: serde_json::Map<_, _> =
            (0..100_000).map(|n| (format!("k{n}"), json!(1))).collect();
        let violations = RunRequest::schema().violations(&Value::Object(keys));
        assert_eq!(violations.len(), MAX_VIOLATIONS + 1);
        assert_eq!(violations[MAX_VIOLATIONS], Violation::more(MAX_VIOLATIONS));
    }

    #[test]
    fn exactly_as_many_mistakes_as_are_listed_are_all_there_are() {
        let body = json!({
            "goal": "g", "inputs": {}, "constraints": {}, "connectors": vec![1; MAX_VIOLATIONS]
        });
        let violations = Intent::schema().violations(&body);
        assert_eq!(violations.len(), MAX_VIOLATIONS);
        assert!(violations.iter().all(|it| it.keyword == "type"));
    }

    #[test]
    fn good_items_between_bad_ones_do_not_shift_them() {
        let items: Vec<Value> = (0..6000)
            .map(|n| if n % 3 == 2 { json!(n) } else { json!("good") })
            .collect();
        let body = json!({"goal": "g", "inputs": {}, "constraints": {}, "connectors": items});
        let violations = Intent::schema().violations(&body);
        let paths: Vec<_> = violations.iter().map(|it| &it.instance_path).collect();
        assert_eq!(paths[0], "/connectors/2");
        assert_eq!(paths[99], "/connectors/299");
        assert_eq!(paths[MAX_VIOLATIONS], "");
    }

    #[test]
    fn a_list_that_is_too_long_is_still_said_to_be() {
        let body = json!({"source": {"kind": "live"}, "toolCalls": vec![1; 1000]});
        let violations = Plan::schema().violations(&body);
        assert!(
            violations.iter().any(|it| it.keyword == "maxItems"),
            "{violations:?}"
        );
    }

    #[test]
    fn a_number_with_a_huge_exponent_is_judged_at_once() {
        for number in ["1e999999999", "1e-999999999", "1.5e99999999999999999999"] {
            let text = format!(
                r#"{{"provider":"p","exitCode":{number},"stdout":"","stderr":"","files":[]}}"#
            );
            let body = crate::parse_json(text.as_bytes()).unwrap();
            assert!(
                !ToolResult::schema().violations(&body).is_empty(),
                "{number}"
            );
        }
    }
}
