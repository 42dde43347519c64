//! Turns a panic of a workflow's body into a recorded error.

use kodo_contract::ErrorCode;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::failpoint;
use crate::failure::RunFailure;
use crate::run::durable::Halt;

/// Runs the body of a workflow. A panic ends it as a failure.
pub(crate) async fn guard<T>(body: impl Future<Output = Result<T, Halt>>) -> Result<T, Halt> {
    let body = async {
        failpoint("start:committed");
        let outcome = body.await;
        failpoint("end:before");
        outcome
    };
    // Unwind safety: the body shares the store, the drain and the ports with the process, and none of them holds an
    // invariant across an await that a panic could break.
    match AssertUnwindSafe(body).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = format!("the workflow panicked: {}", panic_text(panic.as_ref()));
            Err(Halt::Failed(RunFailure::new(ErrorCode::Panic, text)))
        }
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
        let Err(Halt::Failed(failure)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.code, "panic");
        assert!(failure.message.contains("boom 1"));
    }
}
