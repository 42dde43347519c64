//! The settings of the worker: how much it does at once.

use std::time::Duration;

use clap::Args;

use super::parsers::{milliseconds, number};

/// How runs are worked on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
pub(crate) struct WorkSettings {
    /// Runs that this process works on at once; further ones wait as rows
    #[arg(long, env, value_name = "COUNT", default_value = "64", value_parser = number::<usize>(1, 100_000))]
    pub(crate) max_concurrent_runs: usize,
    /// How long checkpoints of quick steps, and the engine's row of a new run, wait to be written together, in milliseconds; a
    /// step that took longer waits for its checkpoint
    #[arg(long = "checkpoint-linger-ms", env = "CHECKPOINT_LINGER_MS", value_name = "MS", default_value = "50", value_parser = milliseconds)]
    pub(crate) checkpoint_linger: Duration,
    /// Jobs that this process has in a live sandbox at once; further ones wait
    #[arg(long, env, value_name = "COUNT", default_value = "8", value_parser = number::<usize>(1, 10_000))]
    pub(crate) max_concurrent_tool_calls: usize,
    /// Version of the engine's schema to start on although it is newer than any that this version knows
    #[arg(long, env, value_name = "VERSION", value_parser = number::<i64>(109, 1_000_000))]
    pub(crate) engine_schema_accept: Option<i64>,
    /// Durable sleep of the crash demo, in milliseconds
    #[arg(long = "wf-sleep-ms", env = "WF_SLEEP_MS", value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    pub(crate) wf_sleep: Duration,
    /// Seed of everything random in tests, part of the planner's fixture key
    #[arg(long, env, value_name = "SEED", default_value = "424242", value_parser = number::<u64>(0, u64::MAX))]
    pub(crate) test_seed: u64,
}
