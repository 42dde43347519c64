//! The engine's system database: all SQL on schema `dbos`.

pub(crate) mod evidence;
pub(crate) mod inspect;
pub(crate) mod journal;
pub(crate) mod locks;
pub(crate) mod names;
pub(crate) mod schema;
pub(crate) mod system_db;
pub(crate) mod trouble;
pub(crate) mod workers;
