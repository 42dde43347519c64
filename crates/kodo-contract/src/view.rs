//! What a client sees of a run. Field order is the contract's; nulls are written out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Boundary, ContentHash, Phase, RunId, RunStatus, Schema, StepId, Timestamp, decimal::whole,
    schema::boundary_schema,
};

/// The longest view of a run, in bytes of JSON. Kept by whoever records a step: what would pass it is recorded in the artifact
/// store, see [`StoredOutput`]. A run of which steps were recorded by versions without this bound can have a longer one.
pub const MAX_VIEW_BYTES: u64 = 8 << 20;

/// A run with all that it did so far. The body of `GET /runs/:id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunView {
    /// The run.
    pub run_id: RunId,
    /// Where it stands.
    pub status: RunStatus,
    /// Its steps in the order in which they started, then by id.
    pub steps: Vec<StepView>,
    /// What its steps produced, by step, then index.
    pub artifacts: Vec<ArtifactRef>,
    /// The caller's id from the [`RunRequest`](crate::RunRequest).
    pub trace_id: Option<String>,
}

impl Boundary for RunView {
    const NAME: &'static str = "RunView";
    // Composed of stored parts, each within the limits by itself; their sum need not be.
    const STORED: bool = false;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/run-view.json")
    }
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepView {
    /// The step.
    pub step_id: StepId,
    /// The part of the run that it belongs to.
    pub phase: Phase,
    /// What it put out, or a [`StoredOutput`].
    pub output: Value,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was done.
    pub finished_at: Option<Timestamp>,
}

/// What a view has in place of an output for which it has no room. The output is the step's artifact of kind `output`, as
/// canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredOutput {
    /// Always true.
    pub stored: bool,
    /// The hash of its bytes.
    pub sha256: ContentHash,
    /// How many they are.
    #[serde(deserialize_with = "whole")]
    pub size: u64,
}

impl Boundary for StoredOutput {
    const NAME: &'static str = "StoredOutput";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/stored-output.json")
    }
}

/// Something that a step produced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactRef {
    /// What it is, for programs; `error` on a run that failed.
    pub kind: String,
    /// Where it is.
    pub uri: String,
    /// The thing itself.
    pub inline: Value,
    /// The hash of its content, 64 lower-case hex digits.
    pub sha256: String,
}

/// Why a run failed: column `app.runs.error`, and `inline` of the artifact of kind `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunError {
    /// Stable, for programs.
    pub code: String,
    /// A sentence, for people.
    pub message: String,
    /// The step that failed, if it was a step.
    pub step_id: Option<StepId>,
}

impl Boundary for RunError {
    const NAME: &'static str = "RunError";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/run-error.json")
    }
}
