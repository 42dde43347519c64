//! Builds the planner that the settings describe.

use std::sync::Arc;

use kodo_planner::{LiveModel, LivePlanner, Planner, RecordPlanner, ReplayPlanner};

use crate::settings::{LiveSettings, PlannerMode, Settings};

/// The planner that is configured. If it needs OpenCode, that is ready when this returns.
///
/// # Errors
/// What is missing, and what to do about it.
pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Arc<dyn Planner>> {
    let planner = &settings.planner;
    Ok(match planner.mode {
        PlannerMode::Replay => Arc::new(ReplayPlanner::new(planner.fixtures_dir.clone())),
        PlannerMode::Live => live(settings).await?,
        PlannerMode::Record => {
            Arc::new(RecordPlanner::new(live(settings).await?, planner.folder()?))
        }
    })
}

/// The live planner that is configured, whatever the mode is.
///
/// # Errors
/// As [`of`].
pub(crate) async fn live(settings: &Settings) -> anyhow::Result<Arc<dyn LiveModel>> {
    match settings.planner.model()? {
        LiveSettings::OpenAi(config) => Ok(Arc::new(LivePlanner::new(config))),
        LiveSettings::OpenCode(opencode) => crate::opencode::planner(settings, opencode).await,
    }
}
