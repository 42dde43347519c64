//! Retries of calls to the product database and to the artifact store while their failures are transient.

use std::fmt::Display;
use std::time::Duration;

use kodo_contract::ErrorCode;
use kodo_store::StoreError;
use kodo_store::content::ArtifactError;
use tokio::time::Instant;

use crate::failure::RunFailure;

/// Calls the product database until it answers. Every failure that is not transient ends the run.
///
/// Not bounded in time, on purpose: the process stops waiting when its engine is shut down, and then the workflow's
/// row is still pending and another worker continues it. A bound would turn an outage into failed runs.
pub(crate) async fn retry_store<T, F, Fut>(mut call: F) -> Result<T, RunFailure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut pause = Pause::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_transient() => pause.wait("the database", &error).await,
            Err(error) => return Err(RunFailure::new(ErrorCode::StoreRefused, error.to_string())),
        }
    }
}

/// Calls the artifact store until it answers, at most for `patience`. A refusal is waited out as well: the start has seen
/// the store work, so credentials were rotated or have expired, or somebody is at work on it. Every other failure that is
/// not transient ends the run.
pub(crate) async fn retry_artifacts<T, F, Fut>(
    patience: Duration,
    mut call: F,
) -> Result<T, RunFailure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, ArtifactError>>,
{
    let deadline = Instant::now() + patience;
    let mut pause = Pause::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error)
                if (error.is_transient() || matches!(error, ArtifactError::Denied(_)))
                    && Instant::now() + pause.next <= deadline =>
            {
                pause.wait("the artifact store", &error).await;
            }
            Err(error) => return Err(artifact_failure(&error)),
        }
    }
}

/// Why a run fails if the artifact store refuses or does not answer.
pub(crate) fn artifact_failure(error: &ArtifactError) -> RunFailure {
    RunFailure::new(
        error.code(),
        format!("{error}; ARTIFACT_STORE says where it is"),
    )
}

/// Pauses that double up to a bound.
struct Pause {
    next: Duration,
    most: Duration,
}

impl Pause {
    fn new(next: Duration, most: Duration) -> Self {
        Self { next, most }
    }

    async fn wait(&mut self, whom: &str, error: &impl Display) {
        let retry_in_ms = self.next.as_millis() as u64;
        tracing::warn!(%error, retry_in_ms, "a step waits for {whom}");
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.most);
    }
}
