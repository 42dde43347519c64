//! SBX, provider `process`: a jail made of the kernel's own mechanisms; and provider [`gvisor`], the same jail around
//! gVisor's kernel.
//!
//! A job runs as a user that is not the machine's user 0, in namespaces of its own, in a file tree of its own, without
//! capabilities, under Landlock, a seccomp filter and limits. [`Jail`] is the provider; [`be_the_helper_if_asked`] is what a
//! program that has one calls first in `main`; [`Capabilities`] says which of these mechanisms a machine has.
//! `docs/sandbox.md` says what it stops and what it does not.
//!
//! If any of it cannot be set up, the job is refused. No function of this crate runs a job without all of it.
//!
//! [`JailedService`] is a long-running program in the same jail. [`lifeline_command`] is the one thing here that is no jail:
//! it runs such a program that an operator wants outside of one.
//!
//! `host` is the service's side, `inside` what runs in the helper and below, and the other files are what both sides use.

mod defence;
pub mod gvisor;
mod host;
mod inside;
mod layout;
mod shortage;
mod sockets;
mod sys;
#[cfg(feature = "weaken")]
mod weaken;
mod wire;

#[cfg(feature = "weaken")]
pub use defence::Defence;
pub use host::capabilities::{Capabilities, Finding, hint_for};
pub use host::cgroup::CgroupPolicy;
pub use host::jail::Jail;
pub use host::service::{JailedService, JailedServiceSpec};
pub use host::shared::{Helper, JailConfig, unprivileged_user};
pub use inside::helper::be_the_helper_if_asked;
#[cfg(feature = "weaken")]
pub use inside::helper::be_the_helper_without;
pub use inside::lifeline::lifeline_command;
