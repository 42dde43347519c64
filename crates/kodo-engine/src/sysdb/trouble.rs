//! Why the system database is of no use, and what mends it: what every database needs, and then schema `dbos`.

use kodo_store::{Cause, DatabaseConfig, Part, StoreError, Trouble};
use sqlx::PgConnection;

use crate::sysdb::schema::{EngineSchema, MOVED_PAYLOADS, TESTED, version};

/// Tables without which no run can be carried out.
const TABLES: [&str; 4] = [
    "dbos_migrations",
    "workflow_status",
    "operation_outputs",
    "queues",
];

/// What the newest migration that was tested makes: a column of `queues`.
const NEWEST_COLUMN: &str = "partition_concurrency";

/// Schema `dbos` as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    version: i64,
    /// Of [`TABLES`], those that are not there.
    missing: Vec<String>,
    /// Whether what [`NEWEST_COLUMN`] stands for is there.
    newest: bool,
    /// Whether the tables of [`MOVED_PAYLOADS`] are there.
    moved: bool,
}

/// Looks why the system database is of no use; `None` if it is of use. `accepted` is a version of schema `dbos` that the
/// operator accepts although this version does not know it.
pub async fn system_trouble(system: &DatabaseConfig, accepted: Option<i64>) -> Option<Trouble> {
    if let Some(trouble) = system.trouble(Part::System).await {
        return Some(trouble);
    }
    match look(system).await {
        Ok(found) => judged(&found, system, accepted),
        Err(error) => Some(Trouble::told_by(&error, Part::System, system)),
    }
}

/// What is wrong if a statement in the system database has failed so. Looks, if the error alone does not say.
pub async fn system_trouble_of(
    system: &DatabaseConfig,
    error: &StoreError,
    accepted: Option<i64>,
) -> Trouble {
    let told = system.trouble_of(Part::System, error).await;
    match told.cause {
        Cause::Damaged | Cause::Other => system_trouble(system, accepted).await.unwrap_or(told),
        _ => told,
    }
}

/// What an operator should know of schema `dbos` although it can be worked on; `None` if it is the tested one.
///
/// # Errors
/// As any statement.
pub async fn schema_warning(system: &DatabaseConfig) -> Result<Option<String>, StoreError> {
    let found = look(system).await?;
    Ok(match found.version >= MOVED_PAYLOADS && !found.moved {
        true => Some(format!(
            "schema dbos has version {}, and none of the tables that come with it (workflow_input): somebody changed the \
             number. If no other SDK has migrated it, set it back: UPDATE dbos.dbos_migrations SET version = {TESTED}",
            found.version
        )),
        false => EngineSchema(found.version).warning(),
    })
}

fn judged(found: &Found, system: &DatabaseConfig, accepted: Option<i64>) -> Option<Trouble> {
    let Found {
        version, missing, ..
    } = found;
    let place = format!("schema dbos of database {:?}", system.database);
    let trouble = |cause, what: String, cure: &str| {
        Some(Trouble {
            cause,
            what,
            cure: cure.to_owned(),
        })
    };
    let gone = |name: &str| missing.iter().any(|table| table == name);
    if gone("dbos_migrations") && gone("workflow_status") {
        let what = format!(
            "database {:?} has no tables of the workflow engine: no service was started on it",
            system.database
        );
        return trouble(
            Cause::NoSchema,
            what,
            "start the service once, and they are made",
        );
    }
    if let Some(refusal) = EngineSchema(*version).refusal(accepted) {
        let what = format!("database {:?}: {refusal}", system.database);
        return trouble(Cause::Newer, what, "");
    }
    if let Some(table) = missing
        .first()
        .filter(|_| *version > 0 || gone("dbos_migrations"))
    {
        let what = format!(
            "{place} has no table {table}, although it has others and its record says version {version}"
        );
        let cure = "restore the database from a backup; `kodo db sys-reset` drops schema dbos with all its rows and makes it \
                    anew";
        return trouble(Cause::Damaged, what, cure);
    }
    if *version < TESTED && found.newest {
        let what = format!(
            "{place} says that it has version {version}, and has what version {TESTED} makes: somebody changed the number"
        );
        let cure = format!("set it back: UPDATE dbos.dbos_migrations SET version = {TESTED}");
        return trouble(Cause::Damaged, what, &cure);
    }
    if *version < TESTED {
        let what =
            format!("{place} has version {version}, and this version of kodo works on {TESTED}");
        return trouble(
            Cause::Pending,
            what,
            "a start of the service brings it up to date",
        );
    }
    None
}

async fn look(system: &DatabaseConfig) -> Result<Found, StoreError> {
    let mut connection = system.connect("kodo-check").await?;
    let version = version(&mut connection).await?;
    let mut missing = Vec::new();
    for table in TABLES {
        if !has_table(&mut connection, table).await? {
            missing.push(table.to_owned());
        }
    }
    let newest: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_attribute
                        WHERE attrelid = to_regclass('dbos.queues') AND attname = $1 AND NOT attisdropped)",
    )
    .persistent(false)
    .bind(NEWEST_COLUMN)
    .fetch_one(&mut connection)
    .await?;
    Ok(Found {
        version,
        missing,
        newest,
        moved: has_moved_payloads(&mut connection).await?,
    })
}

/// Whether inputs and outputs of other SDKs have tables of their own.
pub(crate) async fn has_moved_payloads(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    Ok(has_table(connection, "workflow_input").await?
        && has_table(connection, "workflow_output").await?)
}

async fn has_table(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass('dbos.' || quote_ident($1)) IS NOT NULL")
        .persistent(false)
        .bind(table)
        .fetch_one(connection)
        .await
}

#[cfg(test)]
mod tests {
    use kodo_store::SslMode;

    use super::*;

    #[test]
    fn what_is_recorded_and_what_is_there_decide_together() {
        let system = DatabaseConfig {
            host: "h".to_owned(),
            port: 1,
            user: "u".to_owned(),
            password: String::new(),
            database: "s".to_owned(),
            ssl_mode: SslMode::default(),
        };
        let all = || TABLES.map(str::to_owned).to_vec();
        for (version, missing, newest, accepted, cause) in [
            (0, all(), false, None, Some(Cause::NoSchema)),
            (108, Vec::new(), true, None, None),
            (109, Vec::new(), true, None, None),
            (125, Vec::new(), true, None, None),
            (126, Vec::new(), true, None, Some(Cause::Newer)),
            (126, Vec::new(), true, Some(126), None),
            (50, Vec::new(), false, None, Some(Cause::Pending)),
            (50, Vec::new(), true, None, Some(Cause::Damaged)),
            (
                108,
                vec!["workflow_status".to_owned()],
                true,
                None,
                Some(Cause::Damaged),
            ),
            (
                0,
                vec!["dbos_migrations".to_owned()],
                true,
                None,
                Some(Cause::Damaged),
            ),
        ] {
            let found = Found {
                version,
                missing,
                newest,
                moved: false,
            };
            let judged = judged(&found, &system, accepted);
            assert_eq!(judged.map(|it| it.cause), cause, "{found:?}");
        }
    }
}
