//! SBX, provider `process`: a jail made of the kernel's own parts.
//!
//! A job runs as a user that is not the machine's user 0, in namespaces of its own, in a file tree of its own,
//! without capabilities, under Landlock, a filter of system calls and limits. [`Jail`] is the provider;
//! [`be_the_helper_if_asked`] is what a program that has one calls first in `main`; [`Capabilities`] says what
//! of all this a machine has. `docs/sandbox.md` says what it stops and what it does not.
//!
//! Whatever cannot be put up refuses the job. There is no way through this crate that runs a program without.

mod cgroup;
mod collect;
mod defence;
mod first;
mod helper;
mod jail;
mod job;
mod landlock;
mod probe;
mod program;
mod seccomp;
mod sys;
mod tree;
mod watch;
mod wire;

pub use cgroup::CgroupPolicy;
pub use defence::Defence;
pub use helper::be_the_helper_if_asked;
#[doc(hidden)]
pub use helper::be_the_helper_without;
pub use jail::{Helper, Jail, JailConfig};
pub use probe::{Capabilities, Finding, hint_for};
