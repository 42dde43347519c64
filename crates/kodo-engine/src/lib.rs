//! Durable workflows on DBOS's tables: the intent run, the crash demo, and the workers that carry them out.
//!
//! This is the only crate that names `dbos`. Its rows have the shape that DBOS's SDKs give them, so that its tools read and
//! steer them; they are written in groups, by executions that are fenced: each holds the claim of its run, and the engine's row
//! names it.

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
