//! Copies the engine's rows for `kodo prove`, which loads them into a session of the product database.
//!
//! The statements are in `sql/` because scripts/db/psql-both.sh runs the same ones.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use kodo_store::DatabaseConfig;
use sqlx::{Connection, PgConnection};

use crate::sysdb::inspect::InspectError;
use crate::sysdb::locks::live_workers;
use crate::sysdb::schema::{self, EngineSchema};

/// Bytes that are handed over at once.
const CHUNK: usize = 64 * 1024;

/// What can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineTable {
    /// The workflows of the product database.
    Workflows,
    /// Their checkpoints.
    Checkpoints,
    /// The executor ids of its workers that live.
    Workers,
    /// The tables of the system database.
    Relations,
}

impl EngineTable {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Workflows,
        Self::Checkpoints,
        Self::Workers,
        Self::Relations,
    ];

    /// The temporary table that the rows are for.
    pub fn table(self) -> &'static str {
        match self {
            Self::Workflows => "engine_workflows",
            Self::Checkpoints => "engine_checkpoints",
            Self::Workers => "engine_workers",
            Self::Relations => "engine_relations",
        }
    }

    fn query(self) -> &'static str {
        match self {
            Self::Workflows => include_str!("sql/workflows.sql"),
            Self::Checkpoints => include_str!("sql/checkpoints.sql"),
            Self::Workers => include_str!("sql/workers.sql"),
            Self::Relations => include_str!("sql/relations.sql"),
        }
    }
}

/// The engine's rows of one product database, as of one moment.
pub struct EngineRows {
    connection: PgConnection,
    instance: String,
    first_run: String,
}

impl EngineRows {
    /// Connects. All rows are read as of the moment of the first read. Of the workflows of runs only those with an id
    /// from `first_run` on are read; the empty text comes before all of them.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn connect(
        system: &DatabaseConfig,
        instance: &str,
        first_run: &str,
    ) -> Result<Self, InspectError> {
        let mut connection = system.connect("kodo-prove").await?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut connection)
            .await?;
        // COPY takes no parameters. An instance is eight hexadecimal digits, an id has letters, digits and underscores;
        // everything else is removed.
        let instance = instance.chars().filter(char::is_ascii_hexdigit).collect();
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        Ok(Self {
            connection,
            instance,
            first_run: first_run.chars().filter(plain).collect(),
        })
    }

    /// Reads one of the tables, as text of COPY.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn read(&mut self, table: EngineTable) -> Result<EngineCopy<'_>, InspectError> {
        let query = self.with_parameters(table);
        let rows = self
            .connection
            .copy_out_raw(&format!("COPY (\n{query}\n) TO STDOUT"))
            .await?;
        Ok(EngineCopy(Box::pin(rows.map_ok(Vec::from))))
    }

    /// The executor ids of the workers that live.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn workers(&mut self) -> Result<Vec<String>, InspectError> {
        let mut workers = live_workers(&mut self.connection, &self.instance).await?;
        workers.sort();
        Ok(workers)
    }

    /// The version of the engine's schema.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn schema(&mut self) -> Result<EngineSchema, InspectError> {
        Ok(EngineSchema(schema::version(&mut self.connection).await?))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn close(self) -> Result<(), InspectError> {
        Ok(self.connection.close().await?)
    }

    fn with_parameters(&self, table: EngineTable) -> String {
        let query = table.query();
        let query = query.replace(":'instance'", &format!("'{}'", self.instance));
        query.replace(":'first_run'", &format!("'{}'", self.first_run))
    }
}

/// Rows that are being read.
pub struct EngineCopy<'a>(BoxStream<'a, Result<Vec<u8>, sqlx::Error>>);

impl EngineCopy<'_> {
    /// The next rows, about as many as fit into one chunk; `None` at the end.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, InspectError> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let Some(row) = self.0.try_next().await? else {
                break;
            };
            chunk.extend_from_slice(&row);
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
