//! What runs in the helper and in the processes that come from it, each file knowing only those above it in this list.

pub(crate) mod control;
mod users;

mod seccomp;

mod etc;
mod explain;
mod facts;
mod sources;
mod watch;

mod landlock;
mod proc;
mod tree;

mod collect;
mod program;
mod restore;

mod init;

mod enclosure;
mod gvisor_init;
pub(crate) mod lifeline;
mod namespaces;

pub(crate) mod helper;
