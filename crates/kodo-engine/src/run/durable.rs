//! One durable step, as every workflow of this crate makes it.

use std::future::Future;
use std::time::Duration;

use dbos::sysdb::Error as SystemError;
use dbos::{Error, StepOptions, step_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::drain::Drain;
use crate::failpoint;
use crate::failure::RunFailure;

/// Attempts of a step whose failure is retryable.
const MAX_ATTEMPTS: u32 = 3;

/// Runs `body` as the durable step `name`. It is not run again once its checkpoint is recorded. It is run again after a
/// crash before the checkpoint, and with bounded backoff after a failure that is marked retryable.
///
/// This call, not the first poll, gives the step its place in the workflow's history: steps that are made one after the
/// other and then polled together have the same places in a later execution, in whatever order they end.
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
            outcome.map_err(|failure| match failure.superseded {
                true => superseded(),
                false => Error::Application(failure.in_step(name)),
            })
        }
    });
    async move {
        let _running = drain.begin_step().await;
        let outcome = step.await;
        failpoint(&format!("{name}:checkpointed"));
        outcome.map_err(last_attempt)
    }
}

/// The end of an execution that is not the run's any more: a control signal, of which the engine records nothing.
pub(crate) fn superseded() -> Error<RunFailure> {
    Error::SystemDatabase(SystemError::ConflictingWorkflow {
        workflow_id: dbos::workflow_id().unwrap_or_default(),
        detail: "another execution carries it out".to_owned(),
    })
}

/// Sleeps durably: the wake-up time is a checkpoint, so that a restart sleeps only the rest.
pub(crate) async fn durable_sleep(length: Duration) -> dbos::Result<(), RunFailure> {
    failpoint("DBOS.sleep:before");
    dbos::sleep(length).await?;
    failpoint("DBOS.sleep:checkpointed");
    Ok(())
}

/// The error of the last attempt instead of the list of all: a run shows one reason.
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
