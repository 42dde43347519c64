//! Turns panics and diverged histories, which the engine would leave pending for ever, into recorded errors.

use kodo_contract::ErrorCode;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use dbos::Error;
use dbos::sysdb::Error as SystemError;
use futures_util::FutureExt;

use crate::failpoint;
use crate::failure::RunFailure;

/// Runs a workflow body. A panic, or a history that the code no longer matches, ends it as a failure. The engine would
/// only log either and leave the row `PENDING`, so that the run would be shown as running for ever.
pub(crate) async fn guard<T>(
    body: impl Future<Output = dbos::Result<T, RunFailure>>,
) -> dbos::Result<T, RunFailure> {
    let body = async {
        failpoint("start:committed");
        let outcome = body.await;
        failpoint("end:before");
        outcome
    };
    // Unwind safety: the body shares the store, the drain and the ports with the process, and none of them holds an
    // invariant across an await that a panic could break.
    match AssertUnwindSafe(body).catch_unwind().await {
        Ok(Err(Error::SystemDatabase(SystemError::UnexpectedStep {
            step_id,
            expected,
            recorded,
            ..
        }))) => Err(RunFailure::new(
            ErrorCode::WorkflowDiverged,
            format!(
                "the run's history has {recorded:?} as its step {step_id} where this version has \
                 {expected:?}; run it with the version that started it, or start a new run"
            ),
        )
        .into()),
        Ok(outcome) => outcome,
        Err(panic) => Err(RunFailure::new(
            ErrorCode::Panic,
            format!("the workflow panicked: {}", panic_text(panic.as_ref())),
        )
        .into()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_with_the_panics_message() {
        let outcome = guard::<()>(async { panic!("boom {}", 1) }).await;
        let Err(Error::Application(failure)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.code, "panic");
        assert!(failure.message.contains("boom 1"));
    }

    #[tokio::test]
    async fn a_diverged_history_is_a_failure_that_names_both_steps() {
        let outcome = guard::<()>(async {
            Err(Error::SystemDatabase(SystemError::UnexpectedStep {
                workflow_id: "w".into(),
                step_id: 1,
                expected: "tool-001".into(),
                recorded: "tool-009".into(),
            }))
        })
        .await;
        let Err(Error::Application(failure)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.code, "workflow_diverged");
        assert!(failure.message.contains("tool-001") && failure.message.contains("tool-009"));
    }

    #[tokio::test]
    async fn a_cancellation_stays_the_engines_signal() {
        let outcome = guard::<()>(async {
            Err(Error::WorkflowCancelled {
                workflow_id: "w".into(),
            })
        })
        .await;
        assert!(matches!(outcome, Err(Error::WorkflowCancelled { .. })));
    }
}
