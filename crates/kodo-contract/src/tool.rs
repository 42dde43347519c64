//! What a sandbox answers.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Number, Value};

use crate::{Boundary, Schema, SnapshotRef, decimal::Decimal, schema::boundary_schema};

/// What came of one tool call: the output of an executing step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolResult {
    /// The sandbox that carried it out.
    pub provider: String,
    /// 0 if the tool succeeded.
    #[serde(deserialize_with = "whole_number")]
    pub exit_code: i32,
    /// What the tool wrote.
    pub stdout: String,
    /// What the tool wrote to stderr.
    pub stderr: String,
    /// The files that it left.
    pub files: Vec<ToolFile>,
    /// Why it did not end by itself: `signal`, or the limit that ended it, such as `timeout` or `memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Limits, what held them, what was used, what is not kept. For people; its shape is the sandbox's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Map<String, Value>>,
    /// The folder that it ran in as it left it; absent if the tool has none that is carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<SnapshotRef>,
}

impl Boundary for ToolResult {
    const NAME: &'static str = "ToolResult";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/tool-result.json")
    }
}

/// A file that a tool left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolFile {
    /// Its path, relative to where the tool ran.
    pub name: String,
    /// Its content as text; absent if it is in the artifact store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The hash of its content, 64 lower-case hex digits.
    pub sha256: String,
    /// The length of its content, in bytes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_size"
    )]
    pub size: Option<u64>,
    /// `base64` if its content is not a text that a database can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Whether it is executable; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
    /// Whether its content is in the artifact store, under its hash; absent if it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<bool>,
}

/// Reads every spelling of a whole number: to JSON Schema `1.0` and `1e0` are integers, to serde
/// they are not.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let number = Number::deserialize(deserializer)?;
    let canonical = Decimal::of(&number).canonical();
    canonical
        .parse()
        .map_err(|_| de::Error::custom(format_args!("{number} is no 32-bit integer")))
}

/// The same for a size.
fn whole_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let number = Number::deserialize(deserializer)?;
    let canonical = Decimal::of(&number).canonical();
    canonical
        .parse()
        .map(Some)
        .map_err(|_| de::Error::custom(format_args!("{number} is no size")))
}
