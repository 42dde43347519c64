//! The live planner against a scripted provider, over real HTTP.

mod answers;
mod forms;
mod record;
mod refused;
mod support;
mod trouble;
