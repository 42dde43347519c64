//! The engine's system database: all SQL on schema `dbos`.

pub(crate) mod evidence;
pub(crate) mod health;
pub(crate) mod inspect;
pub(crate) mod system;
