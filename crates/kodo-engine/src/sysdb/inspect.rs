//! Reads the system database for `kodo workflow`, which shows it to people and programs.

use kodo_contract::Timestamp;
use kodo_store::{DatabaseConfig, StoreError};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::sysdb::schema::{self, EngineSchema};
use crate::sysdb::trouble::has_moved_payloads;

/// Why the system database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The server does not answer, or refuses; or schema `dbos` is not there, see
    /// [`system_trouble_of`](crate::system_trouble_of).
    #[error(transparent)]
    Store(StoreError),
    /// The product database does not answer, or refuses.
    #[error(transparent)]
    Product(StoreError),
    /// No workflow has that id.
    #[error("no workflow has the id {0:?}")]
    NotFound(String),
}

impl From<StoreError> for InspectError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for InspectError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// One row of `dbos.workflow_status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSummary {
    /// The workflow's id; a run's workflow has the run's id.
    pub workflow_id: String,
    /// `PENDING`, `ENQUEUED`, `DELAYED`, `SUCCESS`, `ERROR`, `CANCELLED` or `MAX_RECOVERY_ATTEMPTS_EXCEEDED`.
    pub status: String,
    /// The registered name of the workflow.
    pub name: Option<String>,
    /// The worker that runs it or ran it last.
    pub executor_id: Option<String>,
    /// The version of the workflows' shape that it was started under.
    pub application_version: Option<String>,
    /// How often its execution was begun.
    pub recovery_attempts: i64,
    /// The queue it is or was on, if any.
    pub queue_name: Option<String>,
    /// When it was first started.
    pub created_at: Timestamp,
    /// When the engine last updated it.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Its recorded input; a string if it is not JSON.
    pub input: Value,
    /// Its recorded output, if it has one.
    pub output: Value,
    /// Its recorded error, if it ended in one.
    pub error: Value,
}

/// One row of `dbos.operation_outputs`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepSummary {
    /// Position in the workflow, from 0.
    pub function_id: i32,
    /// The step's name.
    pub name: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When its checkpoint was taken.
    pub completed_at: Option<Timestamp>,
    /// The checkpoint's output.
    pub output: Value,
    /// The checkpoint's error, if the step failed.
    pub error: Value,
}

/// A connection to the system database, for reading.
pub struct Inspector(pub(crate) PgConnection);

/// `WORKFLOW_COLUMNS`, in order.
type WorkflowRow = (
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<String>,
    i64,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// `function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, output, error`.
type StepRow = (
    i32,
    String,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
);

const WORKFLOW_COLUMNS: &str = "workflow_uuid, status, name, executor_id, application_version, \
    recovery_attempts, queue_name, created_at, updated_at, completed_at";

/// Where a workflow's input, output and error are: beside the others, or where newer SDKs put them.
const PAYLOADS: &str = "inputs, output, error";
const MOVED: &str = "
    coalesce(inputs, (SELECT i.inputs FROM dbos.workflow_input i WHERE i.workflow_uuid = w.workflow_uuid)),
    coalesce(output, (SELECT o.output FROM dbos.workflow_output o WHERE o.workflow_uuid = w.workflow_uuid)),
    coalesce(error, (SELECT o.error FROM dbos.workflow_output o WHERE o.workflow_uuid = w.workflow_uuid))";

impl Inspector {
    /// Connects.
    ///
    /// # Errors
    /// [`InspectError::Store`] if the server does not answer or has no such database.
    pub async fn connect(system: &DatabaseConfig) -> Result<Self, InspectError> {
        Ok(Self(system.connect("kodo-inspect").await?))
    }

    /// The version of the engine's schema.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn schema(&mut self) -> Result<EngineSchema, InspectError> {
        Ok(EngineSchema(schema::version(&mut self.0).await?))
    }

    async fn payloads(&mut self) -> Result<&'static str, InspectError> {
        // Not by the version's number, which somebody may have changed.
        Ok(match has_moved_payloads(&mut self.0).await? {
            true => MOVED,
            false => PAYLOADS,
        })
    }

    /// The `limit` workflows that were started last, newest first.
    ///
    /// # Errors
    /// As [`InspectError`] says.
    pub async fn workflows(&mut self, limit: i64) -> Result<Vec<WorkflowSummary>, InspectError> {
        let payloads = self.payloads().await?;
        let rows: Vec<WorkflowRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {WORKFLOW_COLUMNS}, {payloads} FROM dbos.workflow_status w
             ORDER BY created_at DESC, workflow_uuid DESC LIMIT $1"
        )))
        .bind(limit)
        .fetch_all(&mut self.0)
        .await?;
        Ok(rows.into_iter().map(WorkflowSummary::from).collect())
    }

    /// One workflow.
    ///
    /// # Errors
    /// [`InspectError::NotFound`] if no workflow has the id.
    pub async fn workflow(&mut self, id: &str) -> Result<WorkflowSummary, InspectError> {
        let payloads = self.payloads().await?;
        let row: Option<WorkflowRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {WORKFLOW_COLUMNS}, {payloads} FROM dbos.workflow_status w WHERE workflow_uuid = $1"
        )))
        .bind(id)
        .fetch_optional(&mut self.0)
        .await?;
        row.map(WorkflowSummary::from)
            .ok_or_else(|| InspectError::NotFound(id.to_owned()))
    }

    /// The checkpoints of one workflow, in order.
    ///
    /// # Errors
    /// [`InspectError::NotFound`] if no workflow has the id.
    pub async fn steps(&mut self, id: &str) -> Result<Vec<StepSummary>, InspectError> {
        self.workflow(id).await?;
        let rows: Vec<StepRow> = sqlx::query_as(
            "SELECT function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, output, error
             FROM dbos.operation_outputs WHERE workflow_uuid = $1 ORDER BY function_id",
        )
        .bind(id)
        .fetch_all(&mut self.0)
        .await?;
        Ok(rows.into_iter().map(StepSummary::from).collect())
    }
}

impl From<WorkflowRow> for WorkflowSummary {
    fn from(row: WorkflowRow) -> Self {
        Self {
            workflow_id: row.0,
            status: row.1,
            name: row.2,
            executor_id: row.3,
            application_version: row.4,
            recovery_attempts: row.5.unwrap_or_default(),
            queue_name: row.6,
            created_at: timestamp(row.7),
            updated_at: timestamp(row.8),
            completed_at: row.9.map(timestamp),
            input: recorded(row.10),
            output: recorded(row.11),
            error: recorded(row.12),
        }
    }
}

impl From<StepRow> for StepSummary {
    fn from((function_id, name, started_at, completed_at, output, error): StepRow) -> Self {
        Self {
            function_id,
            name,
            started_at: started_at.map(timestamp),
            completed_at: completed_at.map(timestamp),
            output: recorded(output),
            error: recorded(error),
        }
    }
}

/// A recorded payload. Another SDK's serializer may have written something that is not JSON.
fn recorded(text: Option<String>) -> Value {
    match text {
        None => Value::Null,
        Some(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

/// The engine's milliseconds since the epoch. A value out of range is shown as the epoch itself.
fn timestamp(epoch_ms: i64) -> Timestamp {
    let nanos = i128::from(epoch_ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .into()
}
