//! The planner that asks a live planner and saves its answers as fixtures.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Fixture, FixtureFolder, LiveModel, PROMPT_VERSION, PlanError, PlanRequest, PlanSource, Planned,
    Planner, Recorded, Saved,
};

/// Always asks a live planner, and saves its answer, a failure included, as the fixture for the question.
///
/// A fixture that exists is replaced if the answer differs, but a failure of the connection or the provider never replaces
/// a plan. The run gets what its replay will get: the fixture.
pub struct RecordPlanner {
    live: Arc<dyn LiveModel>,
    folder: FixtureFolder,
}

impl RecordPlanner {
    /// Saves the answers of `live` in `dir`, which must exist.
    #[must_use]
    pub fn new(live: Arc<dyn LiveModel>, dir: PathBuf) -> Self {
        Self {
            live,
            folder: FixtureFolder::new(dir),
        }
    }

    /// Asks, saves the answer, and returns the fixture and what saving it changed.
    ///
    /// # Errors
    ///
    /// The recording cannot be saved. A failure of the live planner is not an error here, but is recorded.
    pub async fn record(&self, request: &PlanRequest<'_>) -> Result<(Fixture, Saved), PlanError> {
        let fixture = fresh(&*self.live, request).await?;
        let saved = self.folder.save(&fixture).await?;
        tracing::info!(oc.key = fixture.key, saved = ?saved, "recorded the planner's answer");
        Ok((fixture, saved))
    }
}

/// Asks a live planner, and returns its answer as a fixture that is not saved.
///
/// # Errors
///
/// [`PlanError`], except a [`Failure`](crate::Failure) of the model, which is an answer.
pub async fn fresh(live: &dyn LiveModel, request: &PlanRequest<'_>) -> Result<Fixture, PlanError> {
    let recorded = Recorded {
        provider: live.name().to_owned(),
        model: live.model().to_owned(),
        prompt_version: PROMPT_VERSION,
    };
    let answer = match live.plan(request).await {
        Ok(planned) => Ok(planned.plan),
        Err(PlanError::Failed(failure)) => Err(failure),
        Err(other) => return Err(other),
    };
    Ok(Fixture::new(request.intent, request.seed, recorded, answer))
}

#[async_trait]
impl Planner for RecordPlanner {
    fn name(&self) -> &'static str {
        "record"
    }

    async fn plan(&self, request: &PlanRequest<'_>) -> Result<Planned, PlanError> {
        let (fixture, _) = self.record(request).await?;
        Ok(Planned {
            plan: fixture.answer?,
            source: PlanSource::Fixture { key: fixture.key },
        })
    }
}
