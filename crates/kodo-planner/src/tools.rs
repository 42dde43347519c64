//! The port by which a planner asks whether tool calls can be carried out.

use std::fmt::Debug;

use kodo_contract::{Intent, ToolCall};
use serde_json::Value;

/// Checks tool calls before a plan is accepted, so that the model can still repair their arguments.
pub trait Tools: Debug + Send + Sync {
    /// What is wrong with the arguments of a call in a plan for this intent, as the end of a sentence; `None` if the call
    /// can be carried out, as far as can be known beforehand.
    fn fault(&self, intent: &Intent, call: &ToolCall) -> Option<String>;

    /// The tools whose arguments are known, by name, with the JSON Schema of their arguments in a plan for this intent. It
    /// is sent to the model, whose server may hold it to that.
    fn arguments(&self, _intent: &Intent) -> Vec<(String, Value)> {
        Vec::new()
    }
}

/// Tools that accept all arguments.
#[derive(Clone, Copy, Debug)]
pub struct AnyArguments;

impl Tools for AnyArguments {
    fn fault(&self, _: &Intent, _: &ToolCall) -> Option<String> {
        None
    }
}
