//! An OpenAI-compatible server on loopback that answers by script, over real HTTP and server-sent events.
//!
//! It understands nothing; what passes against it proves how we ask and what we make of the answers, never that a model is
//! any good. `tests/shared/model.rs` adds the answers that a model should not give. The product does not contain it.

mod answer;
mod script;
mod server;

pub use answer::{Body, Choice, Form, error, whole};
pub use script::Script;
pub use server::{ScriptedModel, Seen};
