//! What a planner answers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Boundary, Schema, schema::boundary_schema};

/// How an intent is to be reached: the output of the planning step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// What the planner was asked.
    pub prompt: String,
    /// What is to be carried out, in this order; at most 256.
    pub tool_calls: Vec<ToolCall>,
    /// What the planner said, as it said it.
    pub responses: Vec<Value>,
    /// The changes that the planner proposes.
    pub diffs: Vec<Value>,
}

impl Boundary for Plan {
    const NAME: &'static str = "Plan";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/plan.json")
    }
}

/// One thing for a sandbox to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolCall {
    /// The tool; 1 to 128 characters.
    pub name: String,
    /// What the tool is given.
    pub args: Map<String, Value>,
}
