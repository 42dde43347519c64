//! Which system database a product database belongs to.
//!
//! The engine's rows are what says that a run was begun. Seen from a second system database, every unfinished run is
//! one that nobody began, and its sweep would do it again beside the first. So the first one that works on a product
//! database is written into it, and any other is refused while that one is there. Databases are known by their object
//! ids, which survive a renaming and are given once, in one server, which is known by its own id.

use sqlx::PgConnection;

use crate::{DatabaseConfig, Store, StoreError, connect};

/// What a product database is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// To nothing: nobody worked on it, or its system database was dropped since, or it came from another server.
    Free,
    /// To the system database of this name.
    To(String),
    /// It is the copy of a product database that is still there, and is bound to nothing of its own.
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

    /// Refuses a system database that this product database is not to be worked on from. Looks and waits for nobody.
    ///
    /// # Errors
    /// [`StoreError::OtherSystem`], [`StoreError::CopysSystem`], or as any statement.
    pub async fn check_binding(&self, system: &DatabaseConfig) -> Result<(), StoreError> {
        self.binding().await?.admits(&system.database)
    }

    /// The same for a worker that has just taken its slot, and waits for whoever is changing the binding: either that
    /// one has seen the slot taken, or this sees what it has written.
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

    /// Binds the product database to a system database, which is made where it does not exist. Where another one is
    /// bound and still there, nothing is made or written.
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

    /// The turn of one who changes the binding.
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

    /// A connection outside the pool: after an outage each of the pool's may be a dead one, and a worker that comes back
    /// is not to find that out one by one.
    async fn alone(&self) -> Result<PgConnection, StoreError> {
        connect((*self.pool.connect_options()).clone()).await
    }
}

/// The turn of one who changes what the product database is bound to. Whoever else wants to, or has to be sure of it,
/// waits until it is over. Dropped before it has bound anything, it changes nothing.
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

    /// Says that every slot is nobody's: a worker that thought to still have one finds it gone.
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
    /// [`StoreError::Refused`] where there is no such database, or as any statement.
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
    // What is not on this server, or not there any more, joins with nothing.
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
