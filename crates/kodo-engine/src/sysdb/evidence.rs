//! The engine's rows as evidence: what `kodo prove` carries over to a session of the product database.
//!
//! The statements are in `sql/`, because scripts/db/psql-both.sh runs the same ones by hand.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use kodo_store::DatabaseConfig;
use sqlx::{Connection, PgConnection};

use crate::InspectError;

/// How much is handed over at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// What can be carried over.
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
    /// Every one of them.
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
    /// Connects. The rows are those of the moment of the first reading, and of the workflows of runs only those from
    /// `first_run` on, by id; the empty text comes before all of them.
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
        // Statements of COPY take no parameters. An instance is eight hexadecimal digits, and an id has letters, digits and
        // an underscore; nothing else gets in.
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
        let query = self.with_parameters(EngineTable::Workers);
        let mut workers: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_all(&mut self.connection)
            .await?;
        workers.sort();
        Ok(workers)
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

/// Rows under way.
pub struct EngineCopy<'a>(BoxStream<'a, Result<Vec<u8>, sqlx::Error>>);

impl EngineCopy<'_> {
    /// The next rows, as many as make a good packet; `None` where there are no more.
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
