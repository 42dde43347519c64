//! Durable workflows on DBOS: the intent run, the crash demo, and what a service needs around the engine.
//!
//! This is the only crate that names `dbos`. It writes to schema `dbos` through the engine alone, and fills
//! what the engine leaves open: executor ids that no two live processes share (each worker holds a slot),
//! panics and diverged histories that would leave a row pending for ever, a drain, and runs whose status must
//! follow their workflow's.

mod config;
mod control;
mod dispatch;
mod drain;
mod failpoint;
mod failure;
mod handle;
mod holder;
mod launched;
mod run;
mod settle;
mod sysdb;
mod workers;

pub use config::EngineConfig;
pub use failpoint::failpoint;
pub use failure::RunFailure;
pub use handle::EngineHandle;
pub use launched::{EngineError, Launched};
pub use run::kept::{WorkspaceError, workspace_of};
pub use sysdb::evidence::{EngineCopy, EngineRows, EngineTable};
pub use sysdb::inspect::{InspectError, Inspector, StepSummary, WorkflowSummary};
pub use sysdb::locks::LaunchLock;
pub use sysdb::schema::EngineSchema;
pub use sysdb::system_db::reset_system_schema;
pub use sysdb::trouble::{schema_warning, system_trouble, system_trouble_of};
pub use sysdb::workers::{UnfinishedWork, WorkerSlot};
pub use workers::rebind::{RebindError, Rebound, rebind};
