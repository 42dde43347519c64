//! Stands for OpenCode in a build without the cargo feature `opencode`. The settings refuse it before this is asked.

use std::sync::Arc;

use anyhow::bail;
use kodo_planner::LiveModel;

use crate::settings::{DataFolder, OpenCodeSettings, Settings};

const ABSENT: &str = "this kodo was built without the cargo feature opencode";

/// Fails: there is no such planner in this build.
pub(crate) async fn planner(
    _: &Settings,
    _: OpenCodeSettings,
) -> anyhow::Result<Arc<dyn LiveModel>> {
    bail!(ABSENT)
}

/// What is missing is the feature.
pub(crate) fn missing(_: &OpenCodeSettings, _: &DataFolder) -> Option<String> {
    Some(ABSENT.to_owned())
}
