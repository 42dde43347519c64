//! What is wrong with a value that was not valid.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How many violations are listed: more than anybody reads, so few that a body of 1 MiB full of mistakes costs no more
/// than one that is right.
pub const MAX_VIOLATIONS: usize = 1000;

/// One thing that is wrong with a value, in the form of Ajv 8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// JSON Pointer to the part of the value that is wrong.
    pub instance_path: String,
    /// JSON Pointer, as a URI fragment, to the part of the schema that says so.
    pub schema_path: String,
    /// The schema keyword that says so.
    pub keyword: String,
    /// What the keyword demanded, for programs.
    pub params: Value,
    /// What the keyword demands, for people: `must …`.
    pub message: String,
}

impl Violation {
    /// The last entry of a list that was cut off: says that there are more.
    #[must_use]
    pub fn more(listed: usize) -> Self {
        Self {
            instance_path: String::new(),
            schema_path: "#/maxViolations".to_owned(),
            keyword: "maxViolations".to_owned(),
            params: json!({"limit": listed}),
            message: format!("must NOT have more violations than the {listed} that are listed"),
        }
    }

    /// Keeps as many as are listed, and says if there are more.
    pub(crate) fn limit(violations: &mut Vec<Self>, more: bool) {
        if more || violations.len() > MAX_VIOLATIONS {
            violations.truncate(MAX_VIOLATIONS);
            violations.push(Self::more(violations.len()));
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data{} {}", self.instance_path, self.message)
    }
}

/// A value that is not valid, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// What the value should have been, for example `Intent`.
    pub name: &'static str,
    /// What is wrong, in the order that the contract fixes; never empty, and never many: see [`Violation::more`].
    pub violations: Vec<Violation>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: ", self.name)?;
        for (index, violation) in self.violations.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
