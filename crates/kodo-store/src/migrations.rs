//! The embedded migrations of schema `app`, the seed, and the reset.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::{Store, StoreError};

/// Every migration, in order: version, description, SQL. Append only; an applied one never changes.
pub(crate) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "product tables",
        include_str!("../../../db/migrations/0001_product_tables.sql"),
    ),
    (
        2,
        "invariants",
        include_str!("../../../db/migrations/0002_invariants.sql"),
    ),
    (
        3,
        "artifact store",
        include_str!("../../../db/migrations/0003_artifact_store.sql"),
    ),
    (
        4,
        "one system database",
        include_str!("../../../db/migrations/0004_one_system_database.sql"),
    ),
    (
        5,
        "hashed text",
        include_str!("../../../db/migrations/0005_hashed_text.sql"),
    ),
    (
        6,
        "drop invariant views",
        include_str!("../../../db/migrations/0006_drop_invariant_views.sql"),
    ),
    (
        7,
        "run claims",
        include_str!("../../../db/migrations/0007_run_claims.sql"),
    ),
    (
        8,
        "planner away",
        include_str!("../../../db/migrations/0008_planner_away.sql"),
    ),
    (
        9,
        "artifact store mark",
        include_str!("../../../db/migrations/0009_artifact_store_mark.sql"),
    ),
    (
        10,
        "forks",
        include_str!("../../../db/migrations/0010_forks.sql"),
    ),
    (
        11,
        "workspaces",
        include_str!("../../../db/migrations/0011_workspaces.sql"),
    ),
    (
        12,
        "content claims",
        include_str!("../../../db/migrations/0012_content_claims.sql"),
    ),
    (
        13,
        "view bytes",
        include_str!("../../../db/migrations/0013_view_bytes.sql"),
    ),
];

/// What `db:seed` inserts. Each statement can run again without effect.
const SEEDS: &[&str] = &[include_str!("../../../db/seed/0001_demo_intent.sql")];

/// How far the database's schema is from this binary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationState {
    /// Nothing to do.
    AtHead,
    /// This many migrations are not applied yet.
    Pending(usize),
    /// The database has a migration that this binary does not know: a newer version wrote it.
    Newer(i64),
}

/// Version and SHA-384, as 96 hexadecimal digits, of every migration of this version.
pub(crate) fn known() -> Vec<(i64, String)> {
    migrator()
        .iter()
        .map(|migration| {
            let checksum = migration.checksum.iter();
            let hex = checksum.map(|byte| format!("{byte:02x}")).collect();
            (migration.version, hex)
        })
        .collect()
}

/// The checksum of a migration as this version has it; `None` if it does not know the migration.
pub(crate) fn known_checksum(version: i64) -> Option<Vec<u8>> {
    let migrator = migrator();
    let known = migrator
        .iter()
        .find(|migration| migration.version == version)?;
    Some(known.checksum.to_vec())
}

/// How many migrations this version has.
pub fn known_migrations() -> usize {
    MIGRATIONS.len()
}

fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(
        MIGRATIONS
            .iter()
            .map(|&(version, description, sql)| {
                Migration::new(
                    version,
                    description.into(),
                    MigrationType::Simple,
                    sql.into_sql_str(),
                    false,
                )
            })
            .collect(),
    );
    // Inside the schema that they describe: dropping schema `app` resets them too, and the product database
    // may be shared with another application's migrations.
    migrator.create_schema("app");
    migrator.dangerous_set_table_name("app.schema_migrations");
    migrator
}

impl Store {
    /// Brings schema `app` up to date. Safe to call from several processes at once: an advisory lock makes
    /// one of them do the work.
    ///
    /// # Errors
    /// [`StoreError::Migration`] if a migration fails, was changed after it was applied, or the database
    /// is newer than this binary.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        if self.migration_state().await? == MigrationState::AtHead {
            return Ok(());
        }
        migrator().run(&self.pool).await?;
        Ok(())
    }

    /// Compares the applied migrations with the embedded ones, in one statement.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server does not answer.
    pub async fn migration_state(&self) -> Result<MigrationState, StoreError> {
        let applied: Vec<i64> =
            match sqlx::query_scalar("SELECT version FROM app.schema_migrations WHERE success")
                .fetch_all(&self.pool)
                .await
            {
                Ok(applied) => applied,
                // 42P01 undefined_table, 3F000 invalid_schema_name: nothing was ever applied.
                Err(sqlx::Error::Database(error))
                    if matches!(error.code().as_deref(), Some("42P01" | "3F000")) =>
                {
                    Vec::new()
                }
                Err(error) => return Err(error.into()),
            };
        if let Some(&newer) = applied
            .iter()
            .find(|version| !MIGRATIONS.iter().any(|(known, ..)| known == *version))
        {
            return Ok(MigrationState::Newer(newer));
        }
        let pending = MIGRATIONS.len() - applied.len();
        Ok(match pending {
            0 => MigrationState::AtHead,
            pending => MigrationState::Pending(pending),
        })
    }

    /// Inserts the seed rows that are missing.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn seed(&self) -> Result<(), StoreError> {
        for seed in SEEDS {
            sqlx::raw_sql(*seed).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Drops schema `app` with everything in it.
    ///
    /// # Errors
    /// As any statement.
    pub async fn drop_schema(&self) -> Result<(), StoreError> {
        sqlx::raw_sql("DROP SCHEMA IF EXISTS app CASCADE")
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_one_by_one_from_one() {
        for (index, (version, ..)) in MIGRATIONS.iter().enumerate() {
            assert_eq!(*version, index as i64 + 1);
        }
    }

    #[test]
    fn no_migration_names_the_engine_schema_as_a_target() {
        for (_, description, sql) in MIGRATIONS {
            assert!(
                !sql.to_lowercase().contains("dbos."),
                "{description} touches the engine's schema"
            );
        }
    }
}
