//! What a client asks for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Boundary, Schema, schema::boundary_schema};

/// What somebody wants done. The body of `POST /intents`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The goal, in the client's words; at least one character.
    pub goal: String,
    /// What the goal is about.
    pub inputs: Map<String, Value>,
    /// What must hold while it is pursued.
    pub constraints: Map<String, Value>,
    /// What may be used; `null` in JSON is the same as absent, and is written as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectors: Option<Vec<String>>,
}

impl Boundary for Intent {
    const NAME: &'static str = "Intent";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/intent.json")
    }
}

/// How an intent is to be run. The body of `POST /intents/:id/run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunRequest {
    /// The caller's own id for following the run; `null` in JSON is the same as absent, and is
    /// written as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl Boundary for RunRequest {
    const NAME: &'static str = "RunRequest";
    const STORED: bool = true;

    fn schema() -> &'static Schema {
        boundary_schema!("../schemas/run-request.json")
    }
}
