//! What a plan's calls mean to whoever will carry them out.

use std::fmt::Debug;

use kodo_contract::{Intent, ToolCall};

/// Knows which calls can be carried out. Asked before a plan is accepted, so that a model can still mend its arguments.
pub trait Tools: Debug + Send + Sync {
    /// What is wrong with a call in a plan for this intent, as the end of a sentence about its arguments; `None` where
    /// it can be carried out, as far as that can be told beforehand.
    fn fault(&self, intent: &Intent, call: &ToolCall) -> Option<String>;
}

/// Tools that take whatever they are given.
#[derive(Clone, Copy, Debug)]
pub struct AnyArguments;

impl Tools for AnyArguments {
    fn fault(&self, _: &Intent, _: &ToolCall) -> Option<String> {
        None
    }
}
