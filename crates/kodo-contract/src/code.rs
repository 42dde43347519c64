//! Every error code that a run can end with or a component can answer, in one table, with whether trying again can help.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What trying again can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// The same call can succeed later although nobody changes anything: something is away, busy or full.
    Transient,
    /// The same call fails each time. Only another request can succeed.
    Permanent,
    /// The same call can succeed once somebody has changed something outside of the request: a setting, a permission,
    /// a file, a stored row.
    NeedsAPerson,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $code:ident $text:literal $class:ident;)*) => {
        /// A stable error code: what programs decide by. Its text is part of the API and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $code,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The code as it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// What trying again can do about it.
            #[must_use]
            pub const fn retry_class(self) -> RetryClass {
                match self { $(Self::$code => RetryClass::$class,)* }
            }
        }
    };
}

error_codes! {
    // The planner.

    /// Replay found no fixture for the intent.
    PlannerFixtureMissing "planner_fixture_missing" NeedsAPerson;
    /// A fixture is there and must not be used.
    PlannerFixtureInvalid "planner_fixture_invalid" NeedsAPerson;
    /// A fixture is there and could not be read.
    PlannerFixtureUnreadable "planner_fixture_unreadable" NeedsAPerson;
    /// A recording could not be written.
    PlannerFixtureUnwritable "planner_fixture_unwritable" NeedsAPerson;
    /// No connection to the provider, or it broke before the answer began.
    PlannerUnreachable "planner_unreachable" Transient;
    /// The provider failed (5xx), each time that it was asked.
    PlannerUnavailable "planner_unavailable" Transient;
    /// The provider wants fewer requests (429), or has no credit left.
    PlannerRateLimited "planner_rate_limited" Transient;
    /// No plan came within the deadline.
    PlannerDeadline "planner_deadline" Transient;
    /// The provider does not accept the key.
    PlannerUnauthorized "planner_unauthorized" NeedsAPerson;
    /// The provider does not accept the request.
    PlannerRejected "planner_rejected" Permanent;
    /// The answer is longer than is read.
    PlannerAnswerTooLarge "planner_answer_too_large" Permanent;
    /// The answer ended in its middle.
    PlannerAnswerIncomplete "planner_answer_incomplete" Transient;
    /// The answer is no chat completion.
    PlannerAnswerInvalid "planner_answer_invalid" Permanent;
    /// The model declined.
    PlannerDeclined "planner_declined" Permanent;
    /// The provider's content filter removed the answer.
    PlannerFiltered "planner_filtered" Permanent;
    /// The token limit cut the answer off.
    PlannerTruncated "planner_truncated" Permanent;
    /// What the model answered is no valid plan, after all repairs.
    PlanInvalid "plan_invalid" Permanent;
    /// The plan, or the intent, wants what the policy does not allow.
    PlanRefused "plan_refused" Permanent;

    // The sandbox.

    /// The mock cannot make sense of the call.
    SandboxInvalidCall "sandbox_invalid_call" Permanent;
    /// The sandbox cannot be reached for now, or lost the job.
    SandboxUnavailable "sandbox_unavailable" Transient;
    /// The sandbox has no such tool.
    ToolNotSupported "tool_not_supported" Permanent;
    /// The arguments of the tool are no job.
    ToolArgsInvalid "tool_args_invalid" Permanent;
    /// A job that no sandbox could run.
    SandboxJobInvalid "sandbox_job_invalid" Permanent;
    /// The machine or the configuration does not let the sandbox hold the job as it was asked to.
    SandboxRefused "sandbox_refused" NeedsAPerson;
    /// The machine's kernel is short of something that a job needs to start, and was for as long as a job waits for it.
    SandboxShortage "sandbox_shortage" Transient;
    /// The job asks for a secret that it may not have, or that is not there.
    SecretRefused "secret_refused" NeedsAPerson;
    /// The intent's input files are not valid.
    InputFilesInvalid "input_files_invalid" Permanent;

    // The artifact store.

    /// The artifact store cannot be reached, is overloaded or does not answer in time.
    ArtifactStoreUnavailable "artifact_store_unavailable" Transient;
    /// The artifact store has no room.
    ArtifactStoreFull "artifact_store_full" Transient;
    /// The artifact store answers and refuses: credentials, permissions, a bucket that does not exist.
    ArtifactStoreDenied "artifact_store_denied" NeedsAPerson;
    /// The artifact store has no content of this hash.
    ArtifactMissing "artifact_missing" NeedsAPerson;
    /// The artifact store has something else under this hash.
    ArtifactDamaged "artifact_damaged" NeedsAPerson;

    // The product database.

    /// The database cannot be reached, is busy, or an operator is at work on it. A step waits; no run ends with it.
    StoreUnavailable "store_unavailable" Transient;
    /// The database refused a statement, or holds a row that cannot be read.
    StoreRefused "store_refused" Permanent;

    // The engine.

    /// A tool ran and failed.
    ToolFailed "tool_failed" Permanent;
    /// What a tool returned is not valid.
    ToolResultInvalid "tool_result_invalid" Permanent;
    /// What refers to an artifact in the store is not valid.
    ArtifactInvalid "artifact_invalid" Permanent;
    /// The workspace of a call is too large.
    WorkspaceTooLarge "workspace_too_large" Permanent;
    /// Parallel calls changed one path of the workspace differently.
    WorkspaceConflict "workspace_conflict" Permanent;
    /// The intent's `inputs.workspace` is no archive that can be unpacked.
    WorkspaceInvalid "workspace_invalid" Permanent;
    /// The run's row is not there.
    RunMissing "run_missing" NeedsAPerson;
    /// The row of an earlier step is not there.
    StepRowMissing "step_row_missing" NeedsAPerson;
    /// The stored intent is not valid any more.
    StoredIntentInvalid "stored_intent_invalid" NeedsAPerson;
    /// The stored plan is not valid any more.
    StoredPlanInvalid "stored_plan_invalid" NeedsAPerson;
    /// The stored result of a step is not valid any more.
    StoredResultInvalid "stored_result_invalid" NeedsAPerson;
    /// The workflow's recorded input cannot be decoded.
    InputUnreadable "input_unreadable" NeedsAPerson;
    /// The workflow's history is not that of this version.
    WorkflowDiverged "workflow_diverged" NeedsAPerson;
    /// Another workflow was started under the run's id.
    WorkflowIdTaken "workflow_id_taken" Permanent;
    /// The run was recovered too many times without coming to an end.
    RecoveryExhausted "recovery_exhausted" NeedsAPerson;
    /// The workflow panicked.
    Panic "panic" Permanent;
    /// The workflow engine ended the run, for a reason of its own.
    EngineError "engine_error" NeedsAPerson;
}

impl ErrorCode {
    /// Whether the same call can succeed later although nobody changes anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self.retry_class(), RetryClass::Transient)
    }
}

/// Compares the code as it is written.
impl PartialEq<&str> for ErrorCode {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.as_str().to_owned()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_is_written_once_and_the_same_in_json() {
        let texts: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(code.as_str().bytes().all(plain), "{code}");
        }
    }

    #[test]
    fn trying_again_helps_with_what_is_away_busy_or_full_alone() {
        let transient: Vec<&str> = ErrorCode::ALL
            .iter()
            .filter(|code| code.is_transient())
            .map(|code| code.as_str())
            .collect();
        assert_eq!(
            transient,
            [
                "planner_unreachable",
                "planner_unavailable",
                "planner_rate_limited",
                "planner_deadline",
                "planner_answer_incomplete",
                "sandbox_unavailable",
                "sandbox_shortage",
                "artifact_store_unavailable",
                "artifact_store_full",
                "store_unavailable",
            ]
        );
    }
}
