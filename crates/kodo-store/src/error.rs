//! Why a call to the product database failed, split by what the caller can do about it.

use kodo_contract::{ErrorCode, RunStatus};
use sqlx::migrate::MigrateError;

use crate::SchemaError;

/// A failed call to the product database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server cannot be reached, is starting or stopping, or had no connection to spare in time. Nothing
    /// is known to be wrong with the request: it may be tried again.
    #[error("the database is unavailable: {}", Plain(.0))]
    Unavailable(sqlx::Error),
    /// The server refused the statement. Trying again gives the same answer.
    #[error("the database refused: {}", Plain(.0))]
    Refused(sqlx::Error),
    /// The product database belongs to another system database, which is still there. Work that was begun from there
    /// would be done again.
    #[error(
        "the product database belongs to the system database {bound:?}, not to {asked:?}: its runs would be done twice. \
         Set SYS_DB_NAME={bound}, or give up what is recorded there by `kodo db rebind`"
    )]
    OtherSystem {
        /// The one that is bound.
        bound: String,
        /// The one that was asked for.
        asked: String,
    },
    /// The product database is a copy, and this is the system database of its original, which is still there. The two
    /// have an id in common, so that each would take the other's work for its own.
    #[error(
        "the product database is a copy of {original:?}, and {system:?} is the system database of that one: set \
         SYS_DB_NAME to another one, a copy of it or a new one"
    )]
    CopysSystem {
        /// The product database that it is a copy of.
        original: String,
        /// The system database that was asked for.
        system: String,
    },
    /// The server answers, and nothing can be written there now. Somebody may change that while the service waits.
    #[error("database {database:?} cannot be written to: {reason}")]
    ReadOnly {
        /// The database.
        database: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The database's encoding cannot hold every text.
    #[error(
        "database {database:?} has the encoding {encoding}, which cannot hold every text: use one that was created with \
         ENCODING 'UTF8' TEMPLATE template0 (a name that does not exist yet is created so)"
    )]
    Encoding {
        /// The database.
        database: String,
        /// Its encoding.
        encoding: String,
    },
    /// What answers is no server but a pooler that does not keep what a service relies on.
    #[error("{pooler} answers at {address}, and {broken}")]
    Pooled {
        /// Where it answers.
        address: String,
        /// Its name, if it says so.
        pooler: String,
        /// What it does, and the cure.
        broken: &'static str,
    },
    /// The run's state machine has no such transition. Nothing was written.
    #[error("run {run} cannot become {to} in this way")]
    IllegalTransition {
        /// The run, or its workflow.
        run: String,
        /// The status that it was to get.
        to: RunStatus,
    },
    /// A stored row does not have the shape that this version writes.
    #[error("a stored row is unreadable: {0}")]
    Corrupt(String),
    /// Schema `app` is not the one that this version works on.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A migration failed, or the embedded migrations and the database disagree. No source: the text has it whole.
    #[error("{}", PlainMigration(.0))]
    Migration(MigrateError),
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        Self::Migration(error)
    }
}

/// The driver's error in one of a migration, if it has one.
pub(crate) fn driver_error(error: &MigrateError) -> Option<&sqlx::Error> {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Some(error),
        _ => None,
    }
}

impl StoreError {
    /// Stable, for programs: `store_unavailable` if the server is away or busy, or an operator is at work on it (a
    /// password rotated, a grant revoked, a table re-created); otherwise `store_refused`.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) | Self::ReadOnly { .. } => ErrorCode::StoreUnavailable,
            // What does not exist, or exists already, does so until somebody mends the schema.
            Self::Migration(error) => match driver_error(error) {
                Some(error) if !is_missing(error) => code_of(error),
                _ => ErrorCode::StoreRefused,
            },
            Self::Refused(_)
            | Self::OtherSystem { .. }
            | Self::CopysSystem { .. }
            | Self::Encoding { .. }
            | Self::Pooled { .. }
            | Self::IllegalTransition { .. }
            | Self::Corrupt(_)
            | Self::Schema(_) => ErrorCode::StoreRefused,
        }
    }

    /// Whether the same call can succeed later although the caller changes nothing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.code().is_transient()
    }

    /// The SQLSTATE of the server's answer, if it answered.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Unavailable(sqlx::Error::Database(error))
            | Self::Refused(sqlx::Error::Database(error)) => {
                error.code().map(|code| code.into_owned())
            }
            _ => None,
        }
    }

    /// The driver's error in words, without saying whether it is transient.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Unavailable(error) | Self::Refused(error) => Plain(error).to_string(),
            other => other.to_string(),
        }
    }

    /// Whether there is no database of this name. PgBouncer has words of its own for that.
    #[must_use]
    pub fn is_no_database(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else {
            return false;
        };
        match error.code().as_deref() {
            Some("3D000") => true,
            // One that it remembers may be there meanwhile.
            Some("08P01") if error.message().contains("server_login_retry") => false,
            Some("08P01") => ["does not exist", "no such database"]
                .iter()
                .any(|words| error.message().contains(words)),
            _ => false,
        }
    }

    /// Whether the server answered and refuses this role, this statement's privilege or the connection without TLS.
    /// These errors are transient: a run that is under way waits until an operator has mended it. Whoever starts the
    /// service is told at once instead.
    pub fn is_denied(&self) -> bool {
        match self {
            // A handshake that was broken off is another matter: the server may be going down.
            Self::Unavailable(sqlx::Error::Tls(error)) => !error.is::<std::io::Error>(),
            Self::Unavailable(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| code.starts_with("28") || code == "42501"),
            _ => false,
        }
    }
}

/// Displays the driver's error for operators: without the driver's own wording and without the line of Postgres's source.
struct Plain<'a>(&'a sqlx::Error);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            sqlx::Error::Database(error) => f.write_str(error.message()),
            sqlx::Error::Io(error) => error.fmt(f),
            sqlx::Error::Tls(error) => write!(f, "TLS is wanted (DB_SSLMODE), and {error}"),
            sqlx::Error::PoolTimedOut => f.write_str("no connection became available in time"),
            other => other.fmt(f),
        }
    }
}

/// Displays an error of a migration with its cause once.
struct PlainMigration<'a>(&'a MigrateError);

impl std::fmt::Display for PlainMigration<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            MigrateError::Execute(error) => write!(f, "the migrations failed: {}", Plain(error)),
            MigrateError::ExecuteMigration(error, version) => {
                write!(f, "migration {version} failed: {}", Plain(error))
            }
            other => write!(f, "migrations: {other}"),
        }
    }
}

/// Whether a schema, a table or a column does not exist, or the role lacks a privilege: within a migration, nothing of that
/// passes by itself.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("3F000" | "42P01" | "42703" | "42883"))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if code_of(&error).is_transient() {
            Self::Unavailable(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Whether the server cannot serve the statement now (`store_unavailable`), or not as it is (`store_refused`).
///
/// The SQLSTATE classes are those of the Postgres manual, appendix A: 08 connection exception, 53
/// insufficient resources (disk full, too many connections), 57 operator intervention (shutdown, crash,
/// cannot connect now, a statement cancelled by hand or by a timeout), 40 transaction rollback (deadlock,
/// serialization), 55P03 lock not available, 25006 read-only (a standby), 25P03 idle in transaction too long,
/// 28 invalid authorization and 42501 insufficient privilege (see [`StoreError::is_denied`]).
fn code_of(error: &sqlx::Error) -> ErrorCode {
    let unavailable = match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            ["08", "28", "40", "53", "57"]
                .iter()
                .any(|class| code.starts_with(class))
                // No such database, schema or table: an operator is re-creating it. Statements name only
                // what the migrations make, so this is never the request's fault.
                || matches!(code.as_ref(), "3D000" | "3F000" | "42P01")
                || matches!(code.as_ref(), "25006" | "25P03" | "42501" | "55P03")
        }),
        _ => false,
    };
    match unavailable {
        true => ErrorCode::StoreUnavailable,
        false => ErrorCode::StoreRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_the_tls_that_is_wanted_denies_and_one_that_breaks_off_does_not() {
        let tls = |error| StoreError::from(sqlx::Error::Tls(error));
        let none = tls("server does not support TLS".into());
        assert!(none.is_denied());
        assert_eq!(
            none.to_string(),
            "the database is unavailable: TLS is wanted (DB_SSLMODE), and server does not support TLS"
        );
        assert!(!tls(Box::new(std::io::Error::other("reset"))).is_denied());
    }

    #[test]
    fn an_error_of_a_migration_says_its_cause_once() {
        let error = anyhow_chain(StoreError::from(MigrateError::ExecuteMigration(
            sqlx::Error::Io(std::io::Error::other("reset")),
            6,
        )));
        assert_eq!(error, "migration 6 failed: reset");
    }

    /// As the binary prints it.
    fn anyhow_chain(error: StoreError) -> String {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        text
    }

    #[test]
    fn a_lost_connection_is_transient_and_a_missing_row_is_not() {
        assert!(StoreError::from(sqlx::Error::PoolTimedOut).is_transient());
        assert!(StoreError::from(sqlx::Error::Io(std::io::Error::other("reset"))).is_transient());
        assert!(!StoreError::from(sqlx::Error::RowNotFound).is_transient());
    }
}
