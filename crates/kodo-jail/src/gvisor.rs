//! SBX, provider `gvisor`: a user-space kernel for each job.
//!
//! gVisor's `runsc`, which the operator has installed, answers a job's system calls by a kernel written in Go, the
//! Sentry, that is an ordinary process of the machine. It runs in the jail's namespaces, as a user of the machine that
//! has no rights; in it our own init takes the job's files, enforces its limits and hands back its results, by the same
//! code that does so in the jail. So a job has to get out of the Sentry, then out of gVisor's own seccomp filter, and is
//! then a user without rights in namespaces with nothing in them.
//!
//! [`Gvisor`] is the provider. It has no hidden subcommand of its own: a program that has one calls
//! [`crate::be_the_helper_if_asked`] first in `main`.

mod bundle;
mod platform;
mod provider;
mod runsc;

pub use platform::Platform;
pub use provider::{Gvisor, GvisorConfig, hint_for};
