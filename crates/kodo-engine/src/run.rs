//! The bodies of the workflows: what a run does, step by step, and what each step records.

pub(crate) mod begin;
pub(crate) mod context;
pub(crate) mod crash_demo;
pub(crate) mod durable;
pub(crate) mod files;
pub(crate) mod guard;
pub(crate) mod inputs;
pub(crate) mod kept;
pub(crate) mod large;
pub(crate) mod parallel;
pub(crate) mod patience;
pub(crate) mod plan;
pub(crate) mod planner_away;
pub(crate) mod record;
pub(crate) mod retry;
pub(crate) mod room;
pub(crate) mod tool_call;
pub(crate) mod workflow;
pub(crate) mod workspace;
