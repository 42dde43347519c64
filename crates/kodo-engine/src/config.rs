//! The engine's settings.

use std::path::PathBuf;
use std::time::Duration;

use kodo_contract::TreeBounds;
use kodo_sandbox::{Limits, SecretFolder};
use kodo_store::DatabaseConfig;

/// What the engine needs to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Id of the product database, see [`kodo_store::Store::instance`].
    pub instance: String,
    /// The system database.
    pub system: DatabaseConfig,
    /// Most runs that this process works on at once. Further ones wait as rows.
    pub max_concurrent_runs: usize,
    /// How long what the engine's tables are to say of a run waits to be written together (`CHECKPOINT_LINGER_MS`).
    pub checkpoint_linger: Duration,
    /// Most tool calls that this process executes at once. Further ones wait in order of arrival.
    pub max_concurrent_tool_calls: usize,
    /// The folder from which jobs get their secrets.
    pub secrets: SecretFolder,
    /// The most that is carried from one call to the next (`SBX_WORKSPACE_ENTRIES`, `SBX_WORKSPACE_MIB`).
    pub workspace: TreeBounds,
    /// The folder for content of workspaces on its way; made when it is needed, and empty: what is in it has no name.
    pub spool: PathBuf,
    /// Upper bounds for the limits that a call of a plan may ask for.
    pub most: Limits,
    /// Length of the crash demo's durable sleep (`WF_SLEEP_MS`).
    pub crash_demo_sleep: Duration,
    /// How long a step retries the artifact store before its run fails (`ARTIFACT_STORE_PATIENCE_MS`).
    pub artifact_patience: Duration,
    /// How long a run waits for a planner that is away (`OC_UNREACHABLE_MS`).
    pub planner_patience: Duration,
    /// Part of the planner's fixture key and of every deterministic choice (`TEST_SEED`).
    pub seed: u64,
}
