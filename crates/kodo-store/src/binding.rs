//! Which system database a product database belongs to.
//!
//! Only the engine's rows say that a run was begun. From a second system database every unfinished run looks as if it had
//! never been begun, and the sweep would execute it again. So the first system database that a service uses is recorded in
//! the product database, and any other is refused while that one exists. Databases are identified by object id, which
//! survives a renaming and is never reused in a server, and servers by their system identifier.

use sqlx::PgConnection;

use crate::{DatabaseConfig, Store, StoreError};

/// What a product database is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// To nothing: no service has used it, or its system database was dropped, or it was restored on another server.
    Free,
    /// To the system database of this name.
    To(String),
    /// It is a copy of a product database that still exists, and is not bound itself.
    CopyOf {
        /// The original.
        product: String,
        /// The system database of the original. The two databases have an id in common, so that each would take the
        /// other's work there for its own.
        system: String,
    },
}

impl Binding {
    /// Whether the product database may be worked on from this system database.
    fn admits(&self, system: &str) -> Result<(), StoreError> {
        match self {
            Self::To(bound) if bound != system => Err(StoreError::OtherSystem {
                bound: bound.clone(),
                asked: system.to_owned(),
            }),
            Self::CopyOf {
                product,
                system: theirs,
            } if theirs == system => Err(StoreError::CopysSystem {
                original: product.clone(),
                system: theirs.clone(),
            }),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// What this product database is bound to.
    ///
    /// # Errors
    /// As any statement.
    pub async fn binding(&self) -> Result<Binding, StoreError> {
        let found = async {
            let mut connection = self.alone().await?;
            read(&mut connection).await
        };
        match found.await {
            // 3D000, 3F000, 42P01, 42703: there is no database, schema, table or column of this version yet.
            Err(
                StoreError::Unavailable(sqlx::Error::Database(error))
                | StoreError::Refused(sqlx::Error::Database(error)),
            ) if matches!(
                error.code().as_deref(),
                Some("3D000" | "3F000" | "42P01" | "42703")
            ) =>
            {
                Ok(Binding::Free)
            }
            other => other,
        }
    }

    /// Refuses a system database that this product database is not bound to. Takes no lock.
    ///
    /// # Errors
    /// [`StoreError::OtherSystem`], [`StoreError::CopysSystem`], or as any statement.
    pub async fn check_binding(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        self.binding().await?.admits(&system.database)
    }

    /// The same for a worker that has just taken its slot. Waits for a change of the binding that is under way: either
    /// that change sees the taken slot, or this call sees what it has written.
    ///
    /// # Errors
    /// As [`Store::check_binding`].
    pub async fn confirm_binding(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        let mut connection = self.alone().await?;
        sqlx::raw_sql("BEGIN; SELECT FROM app.instance FOR SHARE")
            .execute(&mut connection)
            .await?;
        // A statement of its own, which sees what was committed while the one before waited. Nothing was written: the
        // turn ends with its connection.
        read(&mut connection).await?.admits(&system.database)
    }

    /// Binds the product database to a system database, and creates that if it does not exist. If another one is bound
    /// and still exists, nothing is created or written.
    ///
    /// # Errors
    /// As [`Store::check_binding`].
    pub async fn bind(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        let bound = Binding::To(system.database.clone());
        let binding = self.binding().await?;
        binding.admits(&system.database)?;
        system.ensure_exists().await?;
        if binding == bound {
            return Ok(());
        }
        let mut turn = self.turn_to_bind().await?;
        let binding = turn.binding().await?;
        binding.admits(&system.database)?;
        if binding != bound {
            turn.bind(system).await?;
            tracing::info!(system = %system.database, "bound the product database to its system database");
        }
        Ok(())
    }

    /// Takes the lock under which the binding is changed.
    ///
    /// # Errors
    /// As any statement; the schema has to be migrated.
    pub async fn turn_to_bind(&self) -> Result<TurnToBind, StoreError> {
        let mut connection = self.alone().await?;
        sqlx::raw_sql("BEGIN; SELECT FROM app.instance FOR UPDATE")
            .execute(&mut connection)
            .await?;
        Ok(TurnToBind(connection))
    }
}

/// The lock under which the binding is changed. Every other change, and every worker that takes a slot, waits until it is
/// released. Dropped before anything was bound, it changes nothing.
#[derive(Debug)]
pub struct TurnToBind(PgConnection);

impl TurnToBind {
    /// What the product database is bound to.
    ///
    /// # Errors
    /// As any statement.
    pub async fn binding(&mut self) -> Result<Binding, StoreError> {
        read(&mut self.0).await
    }

    /// Clears the holder of every slot: a worker that believed to hold one notices that it was lost.
    ///
    /// # Errors
    /// As any statement.
    pub async fn take_slots_away(&mut self) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE app.workers SET holder = NULL, changed_at = now() WHERE holder IS NOT NULL",
        )
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    /// Binds the product database to a system database, whatever it is bound to, and ends the turn.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there is no such database, or as any statement.
    pub async fn bind(mut self, system: &DatabaseConfig) -> Result<(), StoreError> {
        sqlx::query_scalar::<_, bool>(
            "UPDATE app.instance i
             SET server = c.system_identifier::text, product_database = p.oid, system_database = s.oid
             FROM pg_control_system() c, pg_database p, pg_database s
             WHERE p.datname = current_database() AND s.datname = $1
             RETURNING true",
        )
        .bind(&system.database)
        .fetch_one(&mut self.0)
        .await?;
        sqlx::raw_sql("COMMIT").execute(&mut self.0).await?;
        Ok(())
    }
}

async fn read(connection: &mut PgConnection) -> Result<Binding, StoreError> {
    // A database of another server, or one that was dropped, joins with no row.
    let (original, system): (Option<String>, Option<String>) = sqlx::query_as(
        "SELECT nullif(p.datname, current_database())::text, s.datname::text
         FROM app.instance i
         CROSS JOIN pg_control_system() c
         LEFT JOIN pg_database p ON p.oid = i.product_database AND i.server = c.system_identifier::text
         LEFT JOIN pg_database s ON s.oid = i.system_database AND i.server = c.system_identifier::text",
    )
    .fetch_one(connection)
    .await?;
    Ok(match (original, system) {
        (_, None) => Binding::Free,
        (None, Some(system)) => Binding::To(system),
        (Some(product), Some(system)) => Binding::CopyOf { product, system },
    })
}
