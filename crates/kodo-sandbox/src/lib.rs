//! SBX: what carries out the tool calls of a plan.
//!
//! [`Sandbox`] is the port. Its one provider so far is [`MockSandbox`], which carries out nothing
//! and answers the same to the same call, always.

mod error;
mod mock;
mod port;

pub use error::SandboxError;
pub use mock::MockSandbox;
pub use port::{Job, Sandbox};
