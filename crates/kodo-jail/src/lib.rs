//! SBX, provider `process`: a jail made of the kernel's own parts.
//!
//! A job runs as a user that is not the machine's user 0, in namespaces of its own, in a file tree of its own,
//! without capabilities, under Landlock, a filter of system calls and limits. [`Jail`] is the provider;
//! [`be_the_helper_if_asked`] is what a program that has one calls first in `main`; [`Capabilities`] says what
//! of all this a machine has. `docs/sandbox.md` says what it stops and what it does not.
//!
//! Whatever cannot be put up refuses the job. There is no way through this crate that runs a job without.
//!
//! [`gvisor`] is the provider of that name, which puts a kernel of its own between the jail and the job.
//! [`Resident`] is a program of the service's own in the same jail, for as long as the service lives.
//! [`lifeline_command`] is the one thing here that is no jail, for such a program that an operator wants outside of one.

mod cgroup;
mod collect;
mod defence;
mod doors;
mod enclosure;
mod first;
mod guest;
pub mod gvisor;
mod heard;
mod helper;
mod jail;
mod job;
mod landlock;
mod lifeline;
mod probe;
mod process;
mod program;
mod resident;
mod seccomp;
mod spare;
mod sys;
mod talk;
mod tree;
mod watch;
#[cfg(feature = "weaken")]
mod weaken;
mod wire;

pub use cgroup::CgroupPolicy;
#[cfg(feature = "weaken")]
pub use defence::Defence;
pub use helper::be_the_helper_if_asked;
pub use jail::{Helper, Jail, JailConfig, unprivileged_user};
pub use lifeline::lifeline_command;
pub use probe::{Capabilities, Finding, hint_for};
pub use resident::{Resident, ResidentSpec};
#[cfg(feature = "weaken")]
pub use weaken::be_the_helper_without;
