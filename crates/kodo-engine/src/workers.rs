//! Worker processes: the slot that each holds, the engine that it launches, and how another worker takes over.

pub(crate) mod error;
pub(crate) mod execute;
pub(crate) mod forks;
pub(crate) mod idle;
pub(crate) mod launch;
pub(crate) mod lease;
pub(crate) mod queue;
pub(crate) mod rebind;
pub(crate) mod shared;
pub(crate) mod stall;
pub(crate) mod standstill;
pub(crate) mod supervisor;
pub(crate) mod sweep;
pub(crate) mod takeover;
