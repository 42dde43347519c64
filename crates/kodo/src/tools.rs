//! Tells the planner which tool calls the sandbox can carry out: neither knows the other.

use kodo_contract::{Intent, ToolCall};
use kodo_planner::Tools;
use kodo_sandbox::{EXEC_TOOL, Limits, call_fault, exec_schema, granted_secrets};
use serde_json::Value;

/// The tools of a live sandbox, within the operator's limits. Also used with the mock sandbox, which accepts any call:
/// the model was told these rules, and a recorded plan has to work with a live sandbox.
#[derive(Debug)]
pub(crate) struct SandboxTools {
    /// The most that a call may ask for.
    pub(crate) most: Limits,
}

impl Tools for SandboxTools {
    fn fault(&self, intent: &Intent, call: &ToolCall) -> Option<String> {
        call_fault(call, &granted_secrets(&intent.constraints), &self.most)
    }

    fn arguments(&self, intent: &Intent) -> Vec<(String, Value)> {
        let schema = exec_schema(&granted_secrets(&intent.constraints));
        vec![(EXEC_TOOL.to_owned(), schema)]
    }
}
