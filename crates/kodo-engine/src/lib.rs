//! Durable workflows on DBOS: the intent run, the crash demo, and everything that keeps them honest.
//!
//! This is the only crate that names `dbos`. It writes to schema `dbos` through the engine alone, and fills
//! what the engine leaves open: executor ids that no two live processes share ([`Engine`] holds a slot),
//! panics and diverged histories that would leave a row pending for ever, a drain, and runs whose status must
//! follow their workflow's.

mod crash_demo;
mod engine;
mod evidence;
mod failpoint;
mod failure;
mod gate;
mod guard;
mod health;
mod holder;
mod inspect;
mod intent_run;
mod material;
mod parallel;
mod plan_step;
mod rebind;
mod recording;
mod settle;
mod slot;
mod starter;
mod step;
mod stranded;
mod supervisor;
mod sweep;
mod system;
mod takeover;
mod tool_step;

pub use engine::{Engine, EngineConfig, StartError};
pub use evidence::{EngineCopy, EngineRows, EngineTable};
pub use failpoint::failpoint;
pub use failure::RunFailure;
pub use health::{UnfinishedWork, WorkerSlot};
pub use inspect::{InspectError, Inspector, StepSummary, WorkflowSummary};
pub use rebind::{RebindError, Rebound, rebind};
pub use system::reset_system_schema;
