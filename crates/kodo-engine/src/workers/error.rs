//! Why something that a worker does for itself failed. The worker logs it and tries again later.

use std::time::Duration;

use kodo_store::{Cause, DatabaseConfig, StoreError};

use crate::sysdb::system_db::SystemDbError;
use crate::sysdb::trouble::{system_trouble, system_trouble_of};

/// A failed attempt to take a slot, to launch the engine, to sweep or to take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("all worker slots of the system database are taken")]
    NoFreeSlot,
    #[error("not done within {0:?}: a lock on a table, or a server that does not answer")]
    NoAnswer(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    SystemDb(#[from] SystemDbError),
    #[error("schema dbos: {0}")]
    Migrate(#[from] dbos::sysdb::migrations::runner::MigrateError),
}

impl WorkerError {
    /// The error in words, with what is wrong with the system database, if something is, and what mends it.
    pub(crate) async fn explained(&self, system: &DatabaseConfig) -> String {
        let trouble = match self {
            Self::Store(error) => Some(system_trouble_of(system, error, None).await),
            Self::Migrate(_) | Self::SystemDb(_) => system_trouble(system, None).await,
            Self::NoFreeSlot | Self::NoAnswer(_) => None,
        };
        // A version that nobody has tried is refused by the start, unless the operator has accepted it.
        let trouble = trouble.filter(|trouble| trouble.cause != Cause::Newer);
        match (trouble, self) {
            (Some(trouble), Self::Store(_)) => trouble.to_string(),
            (Some(trouble), _) => format!("{self}; {trouble}"),
            (None, _) => self.to_string(),
        }
    }
}

impl WorkerError {
    /// Whether a database did not answer, or gave no connection.
    pub(crate) fn is_no_answer(&self) -> bool {
        match self {
            Self::NoAnswer(_) => true,
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for WorkerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
