//! Why a run failed, as the engine records it and the API shows it.

use kodo_contract::{ErrorCode, Invalid, RunError, StepId};
use kodo_planner::PlanError;
use kodo_sandbox::SandboxError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A failure that ends a run: a stable code for programs, a message for people.
///
/// It is the application error of every workflow here, so column `error` of `dbos.workflow_status` holds
/// `{"Application": {"code": …, "message": …, "stepId": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct RunFailure {
    /// Stable, lower case with underscores.
    pub code: String,
    /// What happened and what to do about it.
    pub message: String,
    /// The step that it happened in, if in one.
    pub step_id: Option<String>,
    /// Whether the step is retried: its failure is transient, and whoever reports it has not retried already. Not
    /// recorded, because it is used before.
    #[serde(skip)]
    pub retryable: bool,
    /// Whether this execution is not the run's any more: it ends without an outcome, and the failure is told nobody.
    #[serde(skip)]
    pub superseded: bool,
}

impl RunFailure {
    /// A failure that is not retried.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            step_id: None,
            retryable: false,
            superseded: false,
        }
    }

    /// The end of an execution whose claim was given to another one. See [`RunFailure::superseded`].
    pub(crate) fn superseded() -> Self {
        Self {
            superseded: true,
            ..Self::new(
                ErrorCode::EngineError,
                "another execution carries the run out",
            )
        }
    }

    /// For `map_err` of a validation: a failure with this code and the reasons of the validator.
    pub(crate) fn invalid(code: ErrorCode) -> impl Fn(Invalid) -> Self {
        move |invalid| Self::new(code, invalid.to_string())
    }

    /// The same failure, with the step that it happened in.
    #[must_use]
    pub fn in_step(mut self, step: &str) -> Self {
        self.step_id.get_or_insert_with(|| step.to_owned());
        self
    }
}

/// The envelope in which the engine's columns hold a failure.
#[derive(Serialize, Deserialize)]
enum Envelope<F> {
    Application(F),
}

/// A failure as columns `error` of the engine's tables hold it.
pub(crate) fn encoded_failure(failure: &RunFailure) -> String {
    let text = serde_json::to_string(&Envelope::Application(failure));
    // A failure is three texts, which always are JSON.
    text.unwrap_or_default()
}

/// Reads the `error` column of a step.
pub(crate) fn step_failure(error: &str) -> RunFailure {
    // Until this version a step that was tried several times had the list of its errors.
    #[derive(Deserialize)]
    struct Tried {
        #[serde(rename = "MaxStepRetriesExceeded")]
        tried: Errors,
    }
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Envelope<RunFailure>>,
    }
    let last = serde_json::from_str::<Tried>(error).ok();
    let last = last.and_then(|mut it| it.tried.errors.pop());
    match last.map_or_else(|| serde_json::from_str(error), Ok) {
        Ok(Envelope::Application(failure)) => failure,
        Err(_) => RunFailure::new(
            ErrorCode::EngineError,
            format!("the workflow engine ended the step: {error}"),
        ),
    }
}

impl From<PlanError> for RunFailure {
    fn from(error: PlanError) -> Self {
        // Not retried by the engine although it may be transient: `run/patience.rs` waits for a planner that is away.
        Self::new(error.code(), error.to_string())
    }
}

impl From<SandboxError> for RunFailure {
    fn from(error: SandboxError) -> Self {
        Self {
            retryable: error.is_transient(),
            code: error.code().to_owned(),
            message: error.to_string(),
            step_id: None,
            superseded: false,
        }
    }
}

/// Reads the `error` column of a workflow that ended with status `ERROR`.
///
/// This crate's workflows write it, but an error of the engine itself (such as a step result that no longer decodes)
/// has another shape, and another version may have written the row. In every case the run gets a reason.
pub(crate) fn recorded_failure(error: Option<&str>) -> RunError {
    storable(read_failure(error))
}

/// The reason of a run that failed so.
pub(crate) fn run_error(failure: RunFailure) -> RunError {
    storable(RunError {
        step_id: failure.step_id.as_deref().and_then(StepId::parse),
        code: failure.code,
        message: failure.message,
    })
}

/// The engine's column is text and may hold an escaped U+0000; ours is jsonb and may not.
fn storable(mut error: RunError) -> RunError {
    for text in [&mut error.code, &mut error.message] {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
    }
    error
}

fn read_failure(error: Option<&str>) -> RunError {
    let parsed = error.and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(failure) = parsed
        .as_ref()
        .and_then(|value| value.get("Application"))
        .and_then(|value| serde_json::from_value::<RunFailure>(value.clone()).ok())
    {
        return run_error(failure);
    }
    RunError {
        code: ErrorCode::EngineError.into(),
        message: match error {
            Some(text) => format!("the workflow engine ended the run: {text}"),
            None => "the workflow engine ended the run without a reason".to_owned(),
        },
        step_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_engine_as_it_was() {
        let failure = RunFailure::new(ErrorCode::ToolFailed, "exit code 3").in_step("tool-002");
        let recorded = encoded_failure(&failure);
        assert_eq!(step_failure(&recorded), failure);
        let as_the_engine = serde_json::to_string(&dbos::Error::from(failure)).unwrap();
        assert_eq!(recorded, as_the_engine);
        let error = recorded_failure(Some(&recorded));
        assert_eq!(error.code, "tool_failed");
        assert_eq!(error.message, "exit code 3");
        assert_eq!(error.step_id, Some(StepId::tool(1)));
    }

    #[test]
    fn an_error_of_the_engine_itself_is_still_a_reason() {
        for text in [r#"{"StepTimeout":{"step":"s"}}"#, "not json at all", "null"] {
            let error = recorded_failure(Some(text));
            assert_eq!(error.code, "engine_error");
            assert!(error.message.contains(text), "{}", error.message);
        }
        assert_eq!(recorded_failure(None).code, "engine_error");
    }

    #[test]
    fn a_reason_that_the_product_database_cannot_store_is_made_storable() {
        let error = recorded_failure(Some(
            r#"{"Application":{"code":"x","message":"a\u0000b","stepId":"s\u0000"}}"#,
        ));
        assert_eq!(error.message, "a\u{fffd}b");
        assert_eq!(error.step_id, None);
    }
}
