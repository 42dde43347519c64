//! The system database as a running service uses it: read by SQL, written only through the engine's own interface.

use std::time::Duration;

use dbos::sysdb::postgres::{PostgresSystemDatabase, Settings};
use dbos::sysdb::retry::RetryPolicy;
use dbos::sysdb::types::Outcome;
use dbos::sysdb::{INTERNAL_QUEUE, SystemDatabase};
use kodo_store::{Blocker, DatabaseConfig, StoreError, blockers_in, waits_in};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::failure::RunFailure;
use crate::run::workflow as intent_run;
use crate::sysdb::locks::{live_workers, try_lock_sweep};
use crate::sysdb::names::{app_name, app_version, lock_class};
use crate::sysdb::schema;

/// Connections of [`SystemDb`], and how long a call waits for one.
const CONNECTIONS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// The lock of a sweep is let go if its holder does nothing for this long: a process that is frozen must not keep the
/// others from sweeping. Longer than what a sweep waits for between two statements of its transaction.
const LEAVE_IDLE_SWEEP: &str = "SET LOCAL idle_in_transaction_session_timeout = '30s'";

/// Status and recorded error of one workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkflowRow {
    pub(crate) workflow_uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) status: String,
    pub(crate) error: Option<String>,
}

/// A checkpoint of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The step's name.
    pub(crate) name: String,
    /// Whether the step failed.
    pub(crate) failed: bool,
}

/// A workflow that the engine records as running here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingRow {
    pub(crate) workflow_uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) inputs: Option<String>,
    /// How long ago the engine last updated the row, in milliseconds of the server's clock.
    pub(crate) idle_ms: i64,
}

/// Connections to the system database of one product database.
pub(crate) struct SystemDb {
    pool: PgPool,
    config: DatabaseConfig,
    instance: String,
    /// First key of every advisory lock of the product database.
    pub(crate) lock_class: i32,
    app_name: String,
    app_version: String,
    engine: PostgresSystemDatabase,
}

/// A failed call through the engine's own interface.
#[derive(Debug, thiserror::Error)]
#[error("system database: {0}")]
pub(crate) struct SystemDbError(String);

impl SystemDb {
    /// Connects lazily, with a small pool: it serves sweeps and settlements, not the steps.
    pub(crate) fn new(config: &DatabaseConfig, instance: &str) -> Self {
        let app_name = app_name(instance);
        let app_version = app_version(instance);
        let pool = kodo_store::pool(
            config.connect_options("kodo-system"),
            CONNECTIONS,
            ACQUIRE_TIMEOUT,
        );
        let engine = PostgresSystemDatabase::from_pool(
            pool.clone(),
            &Settings {
                application_name: Some(&app_name),
                // The sweep repeats; a retry inside one call would only hide an outage from it.
                retry: RetryPolicy {
                    retry_connection_errors: false,
                    ..RetryPolicy::default()
                },
                ..Settings::default()
            },
        );
        Self {
            pool,
            config: config.clone(),
            instance: instance.to_owned(),
            lock_class: lock_class(instance),
            app_name,
            app_version,
            engine,
        }
    }

    /// Why nothing can be written, in words; `None` if something can.
    pub(crate) async fn read_only(&self) -> Result<Option<&'static str>, StoreError> {
        kodo_store::read_only(&mut *self.pool.acquire().await?).await
    }

    /// Who keeps sessions of ours waiting for a lock for at least this long, in this database and in `product`, which is on
    /// the same server.
    pub(crate) async fn blockers(
        &self,
        product: &str,
        at_least: Duration,
    ) -> Result<Vec<Blocker>, StoreError> {
        blockers_in(&self.pool, &[product, &self.config.database], at_least).await
    }

    /// The same on a connection of its own, because what waits holds those of the pool; and what sessions of ours wait for
    /// otherwise.
    pub(crate) async fn held_up(
        &self,
        product: &str,
        at_least: Duration,
    ) -> Result<(Vec<Blocker>, Vec<String>), StoreError> {
        let databases = [product, &self.config.database];
        let mut connection = self.config.connect("kodo-watch").await?;
        let blockers = blockers_in(&mut connection, &databases, at_least).await?;
        let waits = waits_in(&mut connection, &databases, at_least / 2).await?;
        Ok((blockers, waits))
    }

    /// The version of the engine's schema.
    pub(crate) async fn schema_version(&self) -> Result<i64, StoreError> {
        Ok(schema::version(&self.pool).await?)
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

    /// The checkpoints of a workflow.
    pub(crate) async fn checkpoints(&self, id: &str) -> Result<Vec<Checkpoint>, StoreError> {
        let rows: Vec<(String, bool)> = sqlx::query_as(
            "SELECT function_name, error IS NOT NULL FROM dbos.operation_outputs WHERE workflow_uuid = $1",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        let checkpoint = |(name, failed)| Checkpoint { name, failed };
        Ok(rows.into_iter().map(checkpoint).collect())
    }

    /// The workflows of runs that are forks, those that were made last first. Walks the engine's partial index on forks.
    pub(crate) async fn forks(&self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT workflow_uuid FROM dbos.workflow_status
             WHERE forked_from IS NOT NULL AND application_name = $1 AND name = $2
             ORDER BY created_at DESC LIMIT 1000",
        )
        .bind(&self.app_name)
        .bind(intent_run::WORKFLOW)
        .fetch_all(&self.pool)
        .await?)
    }

    /// The workflow that this one was forked from; `None` if it is no fork of a run's workflow.
    pub(crate) async fn forked_from(&self, id: &str) -> Result<Option<String>, StoreError> {
        let source: Option<Option<String>> = sqlx::query_scalar(
            "SELECT forked_from FROM dbos.workflow_status WHERE workflow_uuid = $1 AND name = $2",
        )
        .bind(id)
        .bind(intent_run::WORKFLOW)
        .fetch_optional(&self.pool)
        .await?;
        Ok(source.flatten())
    }

    /// Up to `limit` workflows that the engine records as running under an executor id, except the `known` ones. Those
    /// that the engine updated longest ago come first.
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

    /// The executor ids of the workers that live.
    pub(crate) async fn live_workers(&self) -> Result<Vec<String>, StoreError> {
        Ok(live_workers(&self.pool, &self.instance).await?)
    }

    /// A connection of its own, for a session lock: the lock must be released with its connection, so the connection
    /// never returns to the pool.
    pub(crate) async fn session(&self) -> Result<PgConnection, StoreError> {
        Ok(self.pool.acquire().await?.detach())
    }

    /// A transaction that holds the lock of the sweep, or `None` if another process sweeps.
    pub(crate) async fn begin_sweep(
        &self,
    ) -> Result<Option<Transaction<'static, Postgres>>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(LEAVE_IDLE_SWEEP)
            .execute(&mut *transaction)
            .await?;
        let alone = try_lock_sweep(&mut transaction, self.lock_class).await?;
        Ok(alone.then_some(transaction))
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

    /// Returns the unfinished work of an executor to the engine's queue, for any worker with spare capacity.
    pub(crate) async fn reenqueue(&self, executor_id: &str) -> Result<Vec<String>, SystemDbError> {
        self.engine
            .reenqueue_for_recovery(&[executor_id], &self.app_version, INTERNAL_QUEUE)
            .await
            .map_err(|error| SystemDbError(error.to_string()))
    }

    /// Returns one workflow to the engine's queue.
    pub(crate) async fn resume(&self, workflow_id: &str) -> Result<(), SystemDbError> {
        self.engine
            .resume_workflows(&[workflow_id], None, None)
            .await
            .map(drop)
            .map_err(|error| SystemDbError(error.to_string()))
    }

    /// Ends a workflow that can never run again with a recorded error.
    pub(crate) async fn record_failure(
        &self,
        workflow_id: &str,
        failure: RunFailure,
    ) -> Result<(), SystemDbError> {
        let encoded = serde_json::to_string(&dbos::Error::from(failure))
            .map_err(|error| SystemDbError(error.to_string()))?;
        self.engine
            .record_workflow_outcome(workflow_id, Outcome::Error(&encoded))
            .await
            .map(drop)
            .map_err(|error| SystemDbError(error.to_string()))
    }

    /// Closes every connection.
    pub(crate) async fn close(&self) {
        kodo_store::close(&self.pool).await;
    }
}

/// Drops schema `dbos` with everything in it and lets the engine create it again, so that the database can be inspected
/// before a service has run on it.
///
/// # Errors
/// [`StoreError::Unavailable`] if the server does not answer, [`StoreError::Refused`] if it refuses.
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
