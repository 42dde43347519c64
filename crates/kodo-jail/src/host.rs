//! The service's side of a jail, each file knowing only those above it in this list.

mod token;

pub(crate) mod cgroup;
mod deadline;
pub(crate) mod enclosure;

pub(crate) mod shared;

pub(crate) mod process;

pub(crate) mod output;

pub(crate) mod channel;

pub(crate) mod job;

pub(crate) mod spare;

pub(crate) mod jail;

pub(crate) mod capabilities;
pub(crate) mod service;
