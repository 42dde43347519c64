//! Why something that a worker does for itself failed. The worker logs it and tries again later.

use std::time::Duration;

use kodo_store::StoreError;

use crate::sysdb::system_db::SystemDbError;

/// A failed attempt to take a slot, to launch the engine, to sweep or to take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("all worker slots of the system database are taken")]
    NoFreeSlot,
    #[error("the engine cannot be led through the pooler: {0}")]
    Relay(#[from] std::io::Error),
    #[error("not done within {0:?}: a lock on a table, or a server that does not answer")]
    NoAnswer(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    SystemDb(#[from] SystemDbError),
    #[error(transparent)]
    Engine(#[from] dbos::Error),
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
