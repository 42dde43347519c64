//! Why a database is of no use, and what mends it: one answer for the start, for `/readyz` and for every command.

use std::time::Duration;
use std::{fmt, io};

use crate::requirements::STANDBY;
use crate::{DatabaseConfig, SchemaError, StoreError};

/// What is told of a server that accepts a connection and does not answer.
const SILENT: &str = "the server is slow, or a pooler keeps its clients waiting (PgBouncer does for 15 s after a login that \
     failed: server_login_retry); DB_HOST and DB_PORT say where it is";

/// Which of the two databases of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The product database, with schema `app`.
    Product,
    /// The system database, with schema `dbos`.
    System,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Product => "product",
            Self::System => "system",
        })
    }
}

/// Why a database is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing answers there, or a connection broke.
    Unreachable,
    /// The server starts up or shuts down.
    Starting,
    /// The server or the certificate does not fit `DB_SSLMODE`.
    Encryption,
    /// The role is not let in: its name, its password, or the server's rules.
    Login,
    /// A pooler answers with a refusal of before.
    LoginRemembered,
    /// The server has no database of this name.
    NoDatabase,
    /// The schema was never made.
    NoSchema,
    /// The schema is older than this version; a start brings it up to date.
    Pending,
    /// A migration was begun and not finished, was changed, or what it makes is not there, or is there unrecorded.
    Damaged,
    /// A newer version has migrated the schema.
    Newer,
    /// Nothing may be written, by a setting.
    ReadOnly,
    /// The server is a standby.
    Standby,
    /// The server, the database or the role has no connection to spare.
    Connections,
    /// The server is out of disk or memory.
    Resources,
    /// The encoding cannot hold every text.
    Encoding,
    /// What answers is a pooler that does not keep what a service relies on.
    Pooler,
    /// The role lacks a privilege.
    Denied,
    /// The product database belongs to another system database.
    OtherSystem,
    /// The server is slow, or a lock is held.
    Busy,
    /// None of these.
    Other,
}

impl Cause {
    /// Whether the next start mends it without anybody's doing.
    #[must_use]
    pub fn is_mended_by_a_start(self) -> bool {
        matches!(self, Self::NoDatabase | Self::NoSchema | Self::Pending)
    }
}

/// What is wrong with a database, and what mends it. Displays as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The kind.
    pub cause: Cause,
    /// What is wrong, with the name of the database.
    pub what: String,
    /// What mends it; empty if `what` says so.
    pub cure: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.cure.as_str() {
            "" => Ok(()),
            cure => write!(f, ": {cure}"),
        }
    }
}

impl std::error::Error for Trouble {}

impl Trouble {
    /// What an error of a statement in this database says by itself.
    #[must_use]
    pub fn told_by(error: &StoreError, part: Part, config: &DatabaseConfig) -> Self {
        let cause = cause_of(error);
        let what = match error {
            StoreError::Unavailable(_) | StoreError::Refused(_) => {
                let code = error.sqlstate();
                let code = code.map(|code| format!(" (SQLSTATE {code})"));
                let (name, address) = (&config.database, config.address());
                format!(
                    "the {part} database {name:?} at {address}: {}{}",
                    error.plain(),
                    code.unwrap_or_default()
                )
            }
            _ => error.to_string(),
        };
        let cure = match error {
            StoreError::Unavailable(sqlx::Error::Io(error))
                if error.kind() == std::io::ErrorKind::TimedOut =>
            {
                SILENT.to_owned()
            }
            StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Schema(_) => {
                cure(cause, part, config)
            }
            _ => String::new(),
        };
        Self { cause, what, cure }
    }
}

/// Bound on a look: a server may let sessions in and then answer nothing.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

fn silent() -> StoreError {
    let text = format!("no answer within {LOOK_TIMEOUT:?}");
    StoreError::Unavailable(io::Error::new(io::ErrorKind::TimedOut, text).into())
}

impl DatabaseConfig {
    /// Looks why this database is of no use, over connections of its own; `None` if it is of use. Of the system database
    /// only what every database needs: the engine knows its schema.
    pub async fn trouble(&self, part: Part) -> Option<Trouble> {
        let looked = tokio::time::timeout(LOOK_TIMEOUT, self.examine(part)).await;
        let error = looked.unwrap_or_else(|_| Err(silent())).err()?;
        Some(Trouble::told_by(&error, part, self))
    }

    /// What is wrong if a statement in this database has failed so. Looks, if the error alone does not say.
    pub async fn trouble_of(&self, part: Part, error: &StoreError) -> Trouble {
        let told = Trouble::told_by(error, part, self);
        // What a statement did not find, may not write or did not get in time has causes that only a look tells apart. The
        // driver only says that there was no connection.
        match told.cause {
            Cause::NoSchema | Cause::Damaged | Cause::ReadOnly | Cause::Busy | Cause::Other => {
                self.trouble(part).await.unwrap_or(told)
            }
            _ => told,
        }
    }

    async fn examine(&self, part: Part) -> Result<(), StoreError> {
        self.check_requirements().await?;
        match part {
            Part::Product => self.check_schema().await,
            Part::System => Ok(()),
        }
    }
}

fn cause_of(error: &StoreError) -> Cause {
    match error {
        StoreError::Unavailable(error) | StoreError::Refused(error) => cause_of_driver(error),
        StoreError::OtherSystem { .. } | StoreError::CopysSystem { .. } => Cause::OtherSystem,
        StoreError::ReadOnly { reason, .. } if *reason == STANDBY => Cause::Standby,
        StoreError::ReadOnly { .. } => Cause::ReadOnly,
        StoreError::Encoding { .. } => Cause::Encoding,
        StoreError::Pooled { .. } => Cause::Pooler,
        StoreError::Schema(SchemaError::Never { .. }) => Cause::NoSchema,
        StoreError::Schema(SchemaError::Pending { .. }) => Cause::Pending,
        StoreError::Schema(SchemaError::Newer { .. }) => Cause::Newer,
        StoreError::Schema(_) => Cause::Damaged,
        // What a migration finds wrong is told apart by a look at the schema.
        StoreError::Migration(error) => match crate::error::driver_error(error) {
            Some(error) => cause_of_driver(error),
            None => Cause::Damaged,
        },
        StoreError::IllegalTransition { .. } | StoreError::Corrupt(_) => Cause::Other,
    }
}

fn cause_of_driver(error: &sqlx::Error) -> Cause {
    match error {
        sqlx::Error::Tls(error) if !error.is::<std::io::Error>() => Cause::Encryption,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => Cause::Unreachable,
        sqlx::Error::PoolTimedOut => Cause::Busy,
        sqlx::Error::Database(error) => {
            cause_of_state(error.code().as_deref().unwrap_or_default(), error.message())
        }
        _ => Cause::Other,
    }
}

/// The SQLSTATEs are those of the Postgres manual, appendix A. PgBouncer has 08P01 for all of its own, and words.
fn cause_of_state(code: &str, message: &str) -> Cause {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match code {
        _ if says(&["server_login_retry", "server login has been failing"]) => {
            Cause::LoginRemembered
        }
        "3D000" => Cause::NoDatabase,
        "08P01" if says(&["does not exist", "no such database"]) => Cause::NoDatabase,
        "08P01" if says(&["authentication failed", "auth failed", "no such user"]) => Cause::Login,
        "08P01" if says(&["no more connections", "query_wait_timeout"]) => Cause::Connections,
        "08P01" | "26000" | "42P05" => Cause::Pooler,
        "53300" => Cause::Connections,
        "57P01" | "57P02" | "57P03" => Cause::Starting,
        "57014" | "55P03" | "25P03" => Cause::Busy,
        "25006" => Cause::ReadOnly,
        "42501" => Cause::Denied,
        // What does not exist: schema, table, column, function, object; or exists although it is not recorded.
        "3F000" | "42P01" | "42703" | "42883" | "42704" | "42P07" | "42701" | "42710" | "42723"
        | "42P06" => Cause::Damaged,
        _ if code.starts_with("28") => Cause::Login,
        _ if code.starts_with("53") => Cause::Resources,
        _ if code.starts_with("08") => Cause::Unreachable,
        _ => Cause::Other,
    }
}

fn cure(cause: Cause, part: Part, config: &DatabaseConfig) -> String {
    let name = match part {
        Part::Product => "APP_DB_NAME",
        Part::System => "SYS_DB_NAME",
    };
    let user = &config.user;
    match (cause, part) {
        (Cause::Unreachable, _) => {
            "`bin/mise run db:up` starts one; DB_HOST and DB_PORT say where it is".to_owned()
        }
        (Cause::Starting, _) => "wait until it accepts connections".to_owned(),
        (Cause::Encryption, _) => {
            "set DB_SSLMODE to what the server offers, and PGSSLROOTCERT to its authority".to_owned()
        }
        (Cause::Login, _) => format!(
            "set DB_USER and DB_PASSWORD to a role that the server lets in (pg_hba.conf); it is {user:?}"
        ),
        (Cause::LoginRemembered, _) => {
            "PgBouncer remembers that a login failed, for 15 s unless server_login_retry says otherwise: wait".to_owned()
        }
        (Cause::NoDatabase, Part::Product) => {
            format!("{name} names it; `kodo db migrate` and every start make it, if the role may create databases")
        }
        (Cause::NoDatabase, Part::System) => {
            format!("{name} names it; a start makes it, if the role may create databases")
        }
        (Cause::NoSchema | Cause::Pending, Part::Product) => {
            "`kodo db migrate` does that, and every start of the service".to_owned()
        }
        (Cause::NoSchema | Cause::Pending, Part::System) => {
            "a start of the service does that".to_owned()
        }
        (Cause::Newer, Part::Product) => {
            format!("run the version that wrote it, or point {name} elsewhere")
        }
        (Cause::Damaged, Part::Product) => "restore the database from a backup; `kodo db reset` drops schema app with all its \
             rows and makes it anew"
            .to_owned(),
        (Cause::Damaged, Part::System) => "restore the database from a backup; `kodo db sys-reset` drops schema dbos with all \
             its rows and makes it anew"
            .to_owned(),
        (Cause::ReadOnly, _) => "an operator has to allow writing".to_owned(),
        (Cause::Connections, _) => format!(
            "end sessions that nobody needs (pg_stat_activity), or raise the limit (max_connections, ALTER ROLE {user:?} \
             CONNECTION LIMIT, ALTER DATABASE): a service needs up to DB_POOL_SIZE + 17"
        ),
        (Cause::Resources, _) => "free disk or memory of the server".to_owned(),
        (Cause::Denied, _) => {
            format!("the database and its schemas have to belong to {user:?} (docs/operations.md)")
        }
        (Cause::Pooler, _) => {
            "a pooler answers there: set DB_HOST and DB_PORT to the server, or pool_mode = session".to_owned()
        }
        (Cause::Busy, _) => {
            "`kodo doctor` says who holds a lock; pg_stat_activity shows what the server does".to_owned()
        }
        (
            Cause::Newer
            | Cause::Standby
            | Cause::Encoding
            | Cause::OtherSystem
            | Cause::Other,
            _,
        ) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_the_server_or_words_of_a_pooler_have_one_cause() {
        for (code, message, cause) in [
            ("3D000", "database \"x\" does not exist", Cause::NoDatabase),
            ("08P01", "no such database: x", Cause::NoDatabase),
            (
                "08P01",
                "server login has been failing, cached error: database \"x\" does not exist (server_login_retry)",
                Cause::LoginRemembered,
            ),
            ("28P01", "password authentication failed", Cause::Login),
            ("28000", "no pg_hba.conf entry for host", Cause::Login),
            ("08P01", "SASL authentication failed", Cause::Login),
            (
                "53300",
                "sorry, too many clients already",
                Cause::Connections,
            ),
            (
                "53300",
                "too many connections for role \"r\"",
                Cause::Connections,
            ),
            (
                "08P01",
                "no more connections allowed (max_client_conn)",
                Cause::Connections,
            ),
            (
                "08P01",
                "unsupported startup parameter: options",
                Cause::Pooler,
            ),
            ("53100", "No space left on device", Cause::Resources),
            (
                "57P03",
                "the database system is starting up",
                Cause::Starting,
            ),
            (
                "57P01",
                "terminating connection due to administrator command",
                Cause::Starting,
            ),
            ("25006", "cannot execute INSERT", Cause::ReadOnly),
            (
                "42501",
                "permission denied to create database",
                Cause::Denied,
            ),
            ("42P01", "relation does not exist", Cause::Damaged),
            ("42P07", "relation already exists", Cause::Damaged),
            ("55P03", "lock timeout", Cause::Busy),
            ("22012", "division by zero", Cause::Other),
        ] {
            assert_eq!(cause_of_state(code, message), cause, "{code} {message}");
        }
    }
}
