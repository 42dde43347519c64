//! The planner that asks a live one and keeps what it answers.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Fixture, FixtureFolder, LiveModel, PROMPT_VERSION, PlanError, PlanRequest, PlanSource, Planned,
    Planner, Recorded, Saved,
};

/// Asks a live planner, always, and keeps the answer as the fixture for the question, failures included.
///
/// A fixture that is there is replaced where the answer is another one; a failure of the connection or the provider
/// never takes the place of a plan. What the run gets is what its replay will get: the fixture.
pub struct RecordPlanner {
    live: Arc<dyn LiveModel>,
    folder: FixtureFolder,
}

impl RecordPlanner {
    /// Keeps the answers of `live` in `dir`, which must be there.
    #[must_use]
    pub fn new(live: Arc<dyn LiveModel>, dir: PathBuf) -> Self {
        Self {
            live,
            folder: FixtureFolder::new(dir),
        }
    }

    /// Asks and keeps; the recording, and what became of it.
    ///
    /// # Errors
    ///
    /// Where the recording cannot be kept. A failure of the live planner is no error here: it is what is recorded.
    pub async fn record(&self, request: &PlanRequest<'_>) -> Result<(Fixture, Saved), PlanError> {
        let fixture = fresh(&*self.live, request).await?;
        let saved = self.folder.save(&fixture).await?;
        tracing::info!(oc.key = fixture.key, saved = ?saved, "recorded the planner's answer");
        Ok((fixture, saved))
    }
}

/// What a live planner answers now, as a recording that nobody has kept yet.
///
/// # Errors
///
/// What is no answer: a failure of this side.
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
