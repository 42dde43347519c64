//! What the planner is told of the sandbox, neither of which knows the other.

use kodo_contract::{Intent, ToolCall};
use kodo_planner::Tools;
use kodo_sandbox::{Limits, call_fault, granted_secrets};

/// The tools of a sandbox that executes, within what an operator lets a call ask for. So also where the mock sandbox
/// would take anything: that is what the model was told, and what a recorded plan is replayed for.
#[derive(Debug)]
pub(crate) struct SandboxTools {
    /// The most that a call may ask for.
    pub(crate) most: Limits,
}

impl Tools for SandboxTools {
    fn fault(&self, intent: &Intent, call: &ToolCall) -> Option<String> {
        call_fault(call, &granted_secrets(&intent.constraints), &self.most)
    }
}
