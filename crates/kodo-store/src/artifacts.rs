//! Artifacts: what a step produced, with the hash of its content.

use kodo_contract::{RunId, StepId, canonical_json, sha256_hex};
use serde_json::Value;

/// Something that a step produced, before it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewArtifact {
    /// What it is, for people and programs: `plan`, `stdout`, `file`, …
    pub kind: String,
    /// The content.
    pub inline: Value,
}

impl NewArtifact {
    /// Where the artifact of a step at an index is.
    pub(crate) fn uri(run_id: &RunId, step_id: &StepId, index: usize) -> String {
        format!("artifact://{run_id}/{step_id}/{index}")
    }
}

/// sha256 of the canonical JSON (RFC 8785) of an inline content, hexadecimal: the same for the same content,
/// whatever order Postgres keeps object keys in.
pub(crate) fn content_hash(inline: &Value) -> String {
    sha256_hex(canonical_json(inline).as_bytes())
}
