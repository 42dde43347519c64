//! An OpenAI-compatible server that answers by script.
//!
//! It speaks real HTTP and server-sent events on loopback, so that whatever a provider can do to its clients can be
//! done on purpose: answer in any of the three forms, answer wrongly, slowly, by half, without end, or not at all. It
//! understands nothing; what passes against it proves how we ask and what we make of the answers, never that a model is
//! any good.
//!
//! Tests and tasks use it. The product does not contain it.

mod answer;
mod script;
mod server;

pub use answer::{Form, Reply};
pub use script::Script;
pub use server::{ScriptedModel, Seen};
