//! Truncates long arrays before validation, to bound the memory that errors take.
//!
//! The validator creates an error for every wrong item of an array before it returns the first, some five hundred bytes
//! each: half a million wrong items would take a quarter of a gigabyte, for an answer of a thousand lines.

use std::collections::BTreeMap;

use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

use crate::MAX_VIOLATIONS;

/// What a schema says about arrays, at one place of a document and below.
///
/// Our schemas descend by `properties` and `items` alone, which a test makes sure of.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    members: BTreeMap<String, Lists>,
    items: Option<Box<Items>>,
}

#[derive(Debug)]
struct Items {
    validator: Validator,
    /// The number of items from which on the length itself is a violation.
    counted: usize,
    below: Lists,
}

impl Lists {
    pub(crate) fn compile(schema: &Value) -> Result<Self, ValidationError<'static>> {
        let mut lists = Self::default();
        if let Some(properties) = schema["properties"].as_object() {
            for (name, schema) in properties {
                let member = Self::compile(schema)?;
                if !member.members.is_empty() || member.items.is_some() {
                    lists.members.insert(name.clone(), member);
                }
            }
        }
        if let Some(items) = schema.get("items") {
            let counted = |keyword: &str| schema[keyword].as_u64().map_or(0, |most| most + 1);
            let counted = counted("maxItems").max(counted("minItems"));
            lists.items = Some(Box::new(Items {
                validator: jsonschema::options()
                    .with_draft(Draft::Draft202012)
                    .build(items)?,
                counted: usize::try_from(counted).unwrap_or(usize::MAX),
                below: Self::compile(items)?,
            }));
        }
        Ok(lists)
    }

    /// The value with each array cut after its first wrong item beyond the limit; `None` if no array is too long. The first
    /// [`MAX_VIOLATIONS`] violations, and whether there are more, stay the same.
    pub(crate) fn shortened(&self, value: &Value) -> Option<Value> {
        self.is_too_long(value).then(|| self.copy(value))
    }

    fn is_too_long(&self, value: &Value) -> bool {
        match (value, &self.items) {
            (Value::Array(all), Some(items)) => {
                items.end(all) < all.len() || all.iter().any(|one| items.below.is_too_long(one))
            }
            (Value::Object(all), _) => self
                .members
                .iter()
                .any(|(name, member)| all.get(name).is_some_and(|one| member.is_too_long(one))),
            _ => false,
        }
    }

    /// Copies only what is kept.
    fn copy(&self, value: &Value) -> Value {
        match (value, &self.items) {
            (Value::Array(all), Some(items)) => {
                let kept = &all[..items.end(all)];
                kept.iter().map(|one| items.below.copy(one)).collect()
            }
            (Value::Object(all), _) => all
                .iter()
                .map(|(name, one)| {
                    let member = self.members.get(name);
                    let copy = member.map_or_else(|| one.clone(), |member| member.copy(one));
                    (name.clone(), copy)
                })
                .collect(),
            _ => value.clone(),
        }
    }
}

impl Items {
    /// The number of items after which no violation is listed any more.
    fn end(&self, all: &[Value]) -> usize {
        let wrong = all
            .iter()
            .enumerate()
            .filter(|(_, one)| !self.validator.is_valid(one));
        let last = wrong.map(|(index, _)| index).nth(MAX_VIOLATIONS);
        last.map_or(all.len(), |last| {
            (last + 1).max(self.counted).min(all.len())
        })
    }
}
