//! Writes a run's final status once the engine has recorded the outcome of its workflow.

pub(crate) mod outcome;
