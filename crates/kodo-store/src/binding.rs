//! Which system database a product database belongs to.
//!
//! The engine's rows are what says that a run was begun. Seen from a second system database, every unfinished run is
//! one that nobody began, and its sweep would do it again beside the first. So the first one that works on a product
//! database is written into it, and any other is refused while that one is there.

use crate::{DatabaseConfig, Store, StoreError};

impl Store {
    /// The name of the system database that this product database is bound to. `None` where it is bound to none, or to
    /// one that was dropped since: nobody can be at work from there.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn bound_to(&self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT d.datname::text FROM app.instance i JOIN pg_database d ON d.oid = i.system_database",
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Refuses a system database other than the one that is bound.
    ///
    /// # Errors
    /// [`StoreError::OtherSystem`], or as any statement.
    pub async fn check_binding(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        match self.bound_to().await? {
            Some(bound) if bound != system.database => Err(StoreError::OtherSystem {
                bound,
                asked: system.database.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Binds the product database to a system database, which is made where it does not exist. Where another one is
    /// bound and still there, nothing is made or written.
    ///
    /// # Errors
    /// [`StoreError::OtherSystem`], or as any statement.
    pub async fn bind(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        self.check_binding(system).await?;
        system.ensure_exists().await?;
        // Of two that bind an unbound one at the same time, the second waits for the first one's row and then finds it
        // bound.
        let bound = sqlx::query(
            "UPDATE app.instance i SET system_database = s.oid FROM pg_database s
             WHERE s.datname = $1 AND i.system_database IS DISTINCT FROM s.oid
               AND NOT EXISTS (SELECT FROM pg_database d WHERE d.oid = i.system_database)",
        )
        .bind(&system.database)
        .execute(&self.pool)
        .await?;
        if bound.rows_affected() > 0 {
            tracing::info!(system = %system.database, "bound the product database to its system database");
        }
        self.check_binding(system).await
    }

    /// Binds the product database to a system database whatever it is bound to. The caller knows that nobody works on
    /// it from the other one.
    ///
    /// # Errors
    /// As any statement; both databases have to exist.
    pub async fn rebind(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE app.instance SET system_database =
                 (SELECT oid FROM pg_database WHERE datname = $1)",
        )
        .bind(&system.database)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
