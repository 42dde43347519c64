//! SBX, provider `gvisor`: a kernel in a program, for each job one.
//!
//! gVisor's `runsc`, which the operator has installed, answers a job's system calls by a kernel written in Go, the
//! Sentry, that is an ordinary process of the machine. It runs in the namespaces of `kodo-jail`, as a user of the
//! machine that has no rights; in it our own first process takes the job's files, keeps its bounds and hands back
//! what came of it, by the same code that does so in the jail. So a job has to get out of the Sentry, then out of
//! gVisor's own filter of system calls, and is then a user without rights in namespaces with nothing in them.
//!
//! [`Gvisor`] is the provider. It has no hidden part of its own: a program that has one calls
//! [`kodo_jail::be_the_helper_if_asked`] first in `main`.

mod bundle;
mod platform;
mod provider;
mod runsc;

pub use platform::Platform;
pub use provider::{Gvisor, GvisorConfig, hint_for};
