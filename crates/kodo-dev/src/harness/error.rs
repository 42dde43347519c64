//! What goes wrong when a service is driven from outside.

/// A failed step of whoever drives the service.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The binary could not be run.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The service ended before it was ready.
    #[error("the service ended before it was ready ({status}):\n{log}")]
    Ended {
        /// Its exit status.
        status: String,
        /// The last lines that it logged.
        log: String,
    },
    /// The service did not become ready in time.
    #[error("the service was not ready within {seconds} s:\n{log}")]
    NotReady {
        /// How long it was waited for.
        seconds: u64,
        /// The last lines that it logged.
        log: String,
    },
    /// A request got no answer.
    #[error("no answer to {request}: {reason}")]
    NoAnswer {
        /// Method and path.
        request: String,
        /// Why not.
        reason: String,
    },
    /// A signal could not be sent, or the process not be waited for.
    #[error("process: {0}")]
    Process(#[from] std::io::Error),
    /// A statement failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The server could not be reached.
    #[error(transparent)]
    Store(#[from] kodo_store::StoreError),
}
