//! The system database: read by SQL, written through the engine's own interface only.

use dbos::sysdb::postgres::{PostgresSystemDatabase, Settings};
use dbos::sysdb::retry::RetryPolicy;
use dbos::sysdb::types::Outcome;
use dbos::sysdb::{INTERNAL_QUEUE, SystemDatabase};
use kodo_store::{BY_INDEX, DatabaseConfig, StoreError};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;

use crate::failure::RunFailure;

/// Names this application among those sharing the system database; part of every row's ownership. One product
/// database is one application: another one's workflows would find no runs here.
pub(crate) fn app_name(instance: &str) -> String {
    format!("sisu-kodo-{instance}")
}

/// Names the *shape* of our workflows, not the build: a run started by yesterday's build goes on under today's
/// unless the order of steps changed, and then the changed workflow gets a new name beside the old one.
///
/// With the instance, because the engine wants the names of versions to be unique across the applications of a
/// system database.
pub(crate) fn app_version(instance: &str) -> String {
    format!("1-{instance}")
}

/// Status and recorded error of one workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkflowRow {
    pub(crate) workflow_uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) status: String,
    pub(crate) error: Option<String>,
}

/// A workflow that the engine believes to be running here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingRow {
    pub(crate) workflow_uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) inputs: Option<String>,
    /// How long ago the engine last touched the row, in milliseconds of the server's clock.
    pub(crate) idle_ms: i64,
}

/// A handle to the system database.
pub(crate) struct System {
    pub(crate) pool: PgPool,
    app_name: String,
    app_version: String,
    engine: PostgresSystemDatabase,
}

/// A failed call through the engine's own interface.
#[derive(Debug, thiserror::Error)]
#[error("system database: {0}")]
pub(crate) struct SystemError(String);

impl System {
    /// Connects lazily, with a small pool: sweeps and settlements, not the hot path of the engine.
    pub(crate) fn new(config: &DatabaseConfig, instance: &str) -> Self {
        let app_name = app_name(instance);
        let app_version = app_version(instance);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(3))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_millis(250) {
                        sqlx::Connection::ping(connection).await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(config.connect_options("kodo-system").options(BY_INDEX));
        let engine = PostgresSystemDatabase::from_pool(
            pool.clone(),
            &Settings {
                application_name: Some(&app_name),
                // The sweep comes again; waiting inside one call would only hide an outage from it.
                retry: RetryPolicy {
                    retry_connection_errors: false,
                    ..RetryPolicy::default()
                },
                ..Settings::default()
            },
        );
        Self {
            pool,
            app_name,
            app_version,
            engine,
        }
    }

    /// Whether the server answers and the engine's schema is there.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// The rows of the given workflows; those without a row are left out.
    pub(crate) async fn workflows(&self, ids: &[&str]) -> Result<Vec<WorkflowRow>, StoreError> {
        let rows: Vec<(String, Option<String>, String, Option<String>)> = sqlx::query_as(
            "SELECT workflow_uuid, name, status, error FROM dbos.workflow_status
             WHERE workflow_uuid = ANY($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(workflow_uuid, name, status, error)| WorkflowRow {
                workflow_uuid,
                name,
                status,
                error,
            })
            .collect())
    }

    /// Up to `limit` workflows that the engine believes to be running under an executor id, without those
    /// that are known to, the ones that it touched longest ago first.
    pub(crate) async fn pending_of(
        &self,
        executor_id: &str,
        known: &[String],
        limit: i64,
    ) -> Result<Vec<PendingRow>, StoreError> {
        let rows: Vec<(String, Option<String>, Option<String>, i64)> = sqlx::query_as(
            "SELECT workflow_uuid, name, inputs,
                    (extract(epoch FROM now()) * 1000)::bigint - updated_at AS idle_ms
             FROM dbos.workflow_status
             WHERE status = 'PENDING' AND executor_id = $1 AND application_name = $2
               AND workflow_uuid <> ALL($3)
             ORDER BY updated_at LIMIT $4",
        )
        .bind(executor_id)
        .bind(&self.app_name)
        .bind(known)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(workflow_uuid, name, inputs, idle_ms)| PendingRow {
                workflow_uuid,
                name,
                inputs,
                idle_ms,
            })
            .collect())
    }

    /// Slots that some session holds.
    pub(crate) async fn held_slots(&self, class: i32) -> Result<Vec<i64>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT objid::bigint FROM pg_locks
             WHERE locktype = 'advisory' AND granted AND classid = $1::oid AND objsubid = 2
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .bind(i64::from(u32::from_ne_bytes(class.to_ne_bytes())))
        .fetch_all(&self.pool)
        .await?)
    }

    /// Executor ids that have unfinished work.
    pub(crate) async fn busy_executors(&self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT DISTINCT executor_id FROM dbos.workflow_status
             WHERE status = 'PENDING' AND executor_id IS NOT NULL AND application_name = $1",
        )
        .bind(&self.app_name)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Puts the unfinished work of an executor back on the engine's queue, for whoever has room.
    pub(crate) async fn reenqueue(&self, executor_id: &str) -> Result<Vec<String>, SystemError> {
        self.engine
            .reenqueue_for_recovery(&[executor_id], &self.app_version, INTERNAL_QUEUE)
            .await
            .map_err(|error| SystemError(error.to_string()))
    }

    /// Puts one workflow back on the engine's queue.
    pub(crate) async fn resume(&self, workflow_id: &str) -> Result<(), SystemError> {
        self.engine
            .resume_workflows(&[workflow_id], None, None)
            .await
            .map(drop)
            .map_err(|error| SystemError(error.to_string()))
    }

    /// Ends a workflow that can never run again with a recorded error.
    pub(crate) async fn record_failure(
        &self,
        workflow_id: &str,
        failure: RunFailure,
    ) -> Result<(), SystemError> {
        let encoded = serde_json::to_string(&dbos::Error::from(failure))
            .map_err(|error| SystemError(error.to_string()))?;
        self.engine
            .record_workflow_outcome(workflow_id, Outcome::Error(&encoded))
            .await
            .map(drop)
            .map_err(|error| SystemError(error.to_string()))
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        kodo_store::close(&self.pool).await;
    }
}

/// Drops schema `dbos` with everything in it and has the engine make it anew, so that the database is ready
/// to be looked at before a service has run on it.
///
/// # Errors
/// [`StoreError::Unavailable`] where the server does not answer, [`StoreError::Refused`] where it refuses.
pub async fn reset_system_schema(config: &DatabaseConfig) -> Result<(), StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect_with(config.connect_options("kodo-reset"))
        .await?;
    sqlx::raw_sql("DROP SCHEMA IF EXISTS dbos CASCADE")
        .execute(&pool)
        .await?;
    dbos::sysdb::migrations::runner::run(&pool, dbos::sysdb::DEFAULT_SCHEMA, true)
        .await
        .map_err(|error| StoreError::Corrupt(format!("the engine's schema: {error}")))?;
    pool.close().await;
    Ok(())
}
