//! The list of a run's artifacts, and the reference that a row holds instead of content in the artifact store.

use serde::{Deserialize, Serialize};

use crate::{
    Boundary, ContentHash, RunId, Schema, StepId, decimal::whole, schema::boundary_schema,
};

/// The artifacts of a run without their content. The body of `GET /runs/:id/artifacts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactList {
    /// The run.
    pub run_id: RunId,
    /// By step, then index.
    pub artifacts: Vec<ArtifactEntry>,
}

impl Boundary for ArtifactList {
    const NAME: &'static str = "ArtifactList";
    const STORED: bool = false;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/artifact-list.json")
    }
}

/// One artifact, and what `GET /artifacts/:sha256` answers for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactEntry {
    /// The step that produced it; `run` if no step did.
    pub step_id: StepId,
    /// Its place among those of the step.
    #[serde(deserialize_with = "whole")]
    pub index: u32,
    /// What it is, for programs.
    pub kind: String,
    /// The name of a file.
    pub name: Option<String>,
    /// What its bytes are.
    pub media_type: String,
    /// How many they are.
    #[serde(deserialize_with = "whole")]
    pub size: u64,
    /// Their hash.
    pub sha256: ContentHash,
    /// Where it is among the run's artifacts.
    pub uri: String,
    /// Whether they are in the artifact store and not in the row.
    pub stored: bool,
}

/// What a row holds of an artifact whose content is in the artifact store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredContent {
    /// Always true.
    pub stored: bool,
    /// The name of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the bytes are.
    pub media_type: String,
    /// How many they are.
    #[serde(deserialize_with = "whole")]
    pub size: u64,
    /// Their hash, under which they are stored.
    pub sha256: ContentHash,
    /// Whether a file is executable; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
}

impl Boundary for StoredContent {
    const NAME: &'static str = "StoredContent";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/stored-content.json")
    }
}
