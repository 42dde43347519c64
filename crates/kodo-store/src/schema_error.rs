//! In which ways schema `app` can differ from what this version works on.

/// Why schema `app` is not the one that this version works on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// There is no schema `app`.
    #[error("database {database:?} has no schema app: it was never migrated")]
    Never {
        /// The database.
        database: String,
    },
    /// Migrations are not applied yet.
    #[error(
        "database {database:?} is not migrated to this version: {pending} of {known} migrations are not applied"
    )]
    Pending {
        /// The database.
        database: String,
        /// How many.
        pending: usize,
        /// How many this version has.
        known: usize,
    },
    /// A newer version has migrated the schema.
    #[error(
        "database {database:?} has migration {version}, which this version of kodo does not know"
    )]
    Newer {
        /// The database.
        database: String,
        /// The migration that this version does not know.
        version: i64,
    },
    /// A migration was begun and not finished.
    #[error("migration {version} of database {database:?} was begun and did not come to its end")]
    Unfinished {
        /// The database.
        database: String,
        /// The migration.
        version: i64,
    },
    /// A migration was applied from another text than this version has.
    #[error("migration {version} of database {database:?} was changed after it was applied there")]
    Changed {
        /// The database.
        database: String,
        /// The migration.
        version: i64,
    },
    /// A migration is recorded, and something that it makes is not there.
    #[error(
        "database {database:?} has no {thing}, although migration {version}, which makes it, is recorded as applied"
    )]
    Lacks {
        /// The database.
        database: String,
        /// The migration.
        version: i64,
        /// A table or a column.
        thing: String,
    },
    /// Something is there, and the migration that makes it is not recorded: applying it would fail.
    #[error(
        "database {database:?} has {thing}, although migration {version}, which makes it, is not recorded as applied"
    )]
    Unrecorded {
        /// The database.
        database: String,
        /// The migration.
        version: i64,
        /// A table or a column.
        thing: String,
    },
}

impl SchemaError {
    /// Whether rows cannot be read as this version reads them.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        matches!(
            self,
            Self::Never { .. } | Self::Pending { .. } | Self::Lacks { .. }
        )
    }
}
