//! One durable step, as every workflow here takes it.

use kodo_contract::ErrorCode;
use std::future::Future;
use std::time::Duration;

use dbos::{Error, StepOptions, step_with};
use kodo_store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::drain::Drain;
use crate::failpoint;
use crate::failure::RunFailure;

/// How often a step is tried whose failure says that trying again can help.
const MAX_ATTEMPTS: u32 = 3;

/// Runs `body` as the durable step `name`: at most once per recorded checkpoint, again after a crash that came
/// before it, and with bounded backoff after a failure that is marked retryable.
///
/// The step has its place in the workflow's history from this call on, not from when it is polled: several steps that
/// are made one after the other and then driven together are found in the same places by a later execution, in
/// whatever order they ended.
pub(crate) fn durable<'a, T, F, Fut>(
    drain: &'a Drain,
    name: &'a str,
    mut body: F,
) -> impl Future<Output = dbos::Result<T, RunFailure>> + Send + 'a
where
    T: Serialize + DeserializeOwned + Send + 'a,
    F: FnMut() -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, RunFailure>> + Send + 'a,
{
    let options = StepOptions {
        max_attempts: MAX_ATTEMPTS,
        interval: Duration::from_millis(200),
        max_interval: Duration::from_secs(5),
        ..StepOptions::default()
    }
    .should_retry(|error: &Error<RunFailure>| matches!(error, Error::Application(failure) if failure.retryable));
    let step = step_with(name, options, move || {
        failpoint(&format!("{name}:before"));
        let work = body();
        async move {
            let outcome = work.await;
            failpoint(&format!("{name}:committed"));
            outcome.map_err(|failure| Error::Application(failure.in_step(name)))
        }
    });
    async move {
        let _running = drain.begin_step().await;
        let outcome = step.await;
        failpoint(&format!("{name}:checkpointed"));
        outcome.map_err(last_attempt)
    }
}

/// Sleeps durably: the wake-up time is a checkpoint, so a restart sleeps what is left and no more.
pub(crate) async fn durable_sleep(length: Duration) -> dbos::Result<(), RunFailure> {
    failpoint("DBOS.sleep:before");
    dbos::sleep(length).await?;
    failpoint("DBOS.sleep:checkpointed");
    Ok(())
}

/// What the last of several attempts said, instead of the list of all: the run shows one reason.
fn last_attempt(error: Error<RunFailure>) -> Error<RunFailure> {
    match error {
        Error::MaxStepRetriesExceeded {
            step,
            attempts,
            mut errors,
        } => match errors.pop() {
            Some(last) => last,
            None => Error::MaxStepRetriesExceeded {
                step,
                attempts,
                errors,
            },
        },
        other => other,
    }
}

/// Calls the store until it answers: a lost connection is weather, and a step waits it out.
///
/// Not bounded in time, on purpose. The process stops waiting when its engine is shut down, and then the row
/// is still pending and somebody else goes on with it; giving up here would turn an outage into failed runs.
pub(crate) async fn weather<T, F, Fut>(mut call: F) -> Result<T, RunFailure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    const FIRST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(1);
    let mut pause = FIRST;
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, retry_in_ms = pause.as_millis() as u64, "a step waits for the database");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MOST);
            }
            Err(error) => return Err(RunFailure::new(ErrorCode::StoreRefused, error.to_string())),
        }
    }
}
