//! The version of schema `dbos`, and what this version of Sisu Kodo makes of it: other SDKs of DBOS migrate the schema when
//! an application of theirs is launched on it.

use kodo_store::{DatabaseConfig, StoreError};
use sqlx::{Connection, PgConnection, PgExecutor};

/// The version that the engine makes, and that every test runs on.
pub(crate) const TESTED: i64 = 108;

/// The newest version that was tried: its tables are a superset, and inputs and outputs have tables of their own.
const NEWEST: i64 = 125;

/// The version from which inputs and outputs that another SDK writes are in `workflow_input` and `workflow_output`.
pub(crate) const MOVED_PAYLOADS: i64 = 109;

/// The version of schema `dbos`; 0 if there is none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSchema(pub i64);

impl EngineSchema {
    /// Reads it from a system database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server does not answer or has no such database.
    pub async fn of(system: &DatabaseConfig) -> Result<Self, StoreError> {
        let mut connection = match system.connect("kodo-schema").await {
            // The first start makes it.
            Err(error) if error.is_no_database() => return Ok(Self(0)),
            connected => connected?,
        };
        let version = version(&mut connection).await?;
        PgConnection::close(connection).await?;
        Ok(Self(version))
    }

    /// What an operator should know of a version that is worked on although it is not the tested one.
    #[must_use]
    pub fn warning(self) -> Option<String> {
        (self.0 > TESTED).then(|| {
            format!(
                "schema dbos has version {}, and this version of kodo is tested on {TESTED}: {} migrates so. Give its \
                 application a system database of its own",
                self.0,
                self.migrated_by()
            )
        })
    }

    /// Why a start is refused, unless the operator has accepted exactly this version.
    #[must_use]
    pub fn refusal(self, accepted: Option<i64>) -> Option<String> {
        let Self(version) = self;
        (version > NEWEST && accepted != Some(version)).then(|| {
            format!(
                "schema dbos has version {version}, and this version of kodo knows versions up to {NEWEST}: {} migrated \
                 it. Restore the system database or use a newer kodo; ENGINE_SCHEMA_ACCEPT={version} starts all the same",
                self.migrated_by()
            )
        })
    }

    /// The SDKs that bring the schema to this version when an application is launched.
    fn migrated_by(self) -> &'static str {
        match self.0 {
            ..115 => "Python dbos 3.0 or TypeScript 5.0",
            115..=122 => "Python dbos 3.1 or TypeScript 5.1",
            123 => "Python dbos 3.2 or 3.3, or TypeScript 5.2 or 5.3,",
            124..=NEWEST => "Python dbos 3.4",
            _ => "a newer SDK of DBOS",
        }
    }
}

/// The version of schema `dbos`; 0 if there is none.
pub(crate) async fn version(database: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    let read: Result<Option<i64>, sqlx::Error> =
        sqlx::query_scalar("SELECT max(version) FROM dbos.dbos_migrations")
            .fetch_one(database)
            .await;
    match read {
        // 42P01 undefined_table, 3F000 invalid_schema_name.
        Err(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("42P01" | "3F000")) =>
        {
            Ok(0)
        }
        version => Ok(version?.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_told_and_an_unknown_one_refused_unless_it_is_accepted_by_its_number() {
        for (version, warns, refused) in [
            (0, false, false),
            (107, false, false),
            (108, false, false),
            (109, true, false),
            (123, true, false),
            (125, true, false),
            (126, true, true),
            (1000, true, true),
        ] {
            let schema = EngineSchema(version);
            assert_eq!(schema.warning().is_some(), warns, "{version}");
            assert_eq!(schema.refusal(None).is_some(), refused, "{version}");
            assert_eq!(schema.refusal(Some(version)), None, "{version}");
            assert_eq!(
                schema.refusal(Some(version + 1)).is_some(),
                refused,
                "{version}"
            );
        }
        let said = EngineSchema(126).refusal(None).unwrap();
        assert!(said.contains("ENGINE_SCHEMA_ACCEPT=126"), "{said}");
    }
}
