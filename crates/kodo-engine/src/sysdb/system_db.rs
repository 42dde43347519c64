//! The system database as a running service uses it, beside what executions record (`sysdb/journal.rs`): what sweeps, looks at
//! the queue and recoveries read, and the verbs of the engine's clients, through the engine's own interface.

use std::collections::HashMap;
use std::time::Duration;

use dbos::sysdb::postgres::{PostgresSystemDatabase, Settings};
use dbos::sysdb::retry::RetryPolicy;
use dbos::sysdb::{INTERNAL_QUEUE, SystemDatabase};
use kodo_store::{Blocker, DatabaseConfig, Journal, StoreError, blockers_in, waits_in};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::run::workflow as intent_run;
use crate::sysdb::journal::System;
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

/// A step that an earlier execution recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordedStep {
    pub(crate) name: String,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
}

/// A workflow in the engine's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueuedRow {
    pub(crate) workflow_uuid: String,
    pub(crate) name: String,
    pub(crate) input: Option<String>,
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
    config: DatabaseConfig,
    pool: PgPool,
    /// What executions write.
    pub(crate) journal: Journal<System>,
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
    /// Connects lazily, with a small pool: it serves sweeps, looks and recoveries, not the steps.
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
        let group = System {
            app_name: app_name.clone(),
            app_version: app_version.clone(),
        };
        Self {
            config: config.clone(),
            journal: Journal::new(config.connect_options("kodo-system-journal"), group),
            pool,
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

    /// What earlier executions of a workflow recorded, by place in its history.
    pub(crate) async fn history(&self, id: &str) -> Result<HashMap<i32, RecordedStep>, StoreError> {
        let rows: Vec<(i32, String, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT function_id, function_name, output, error FROM dbos.operation_outputs WHERE workflow_uuid = $1",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        let step = |(place, name, output, error)| {
            let step = RecordedStep {
                name,
                output,
                error,
            };
            (place, step)
        };
        Ok(rows.into_iter().map(step).collect())
    }

    /// Up to `limit` workflows of these names that wait in the engine's queue and may begin now, in the order of the queue.
    pub(crate) async fn queued(
        &self,
        names: &[&str],
        limit: i64,
    ) -> Result<Vec<QueuedRow>, StoreError> {
        // A queue of another name belongs to somebody else. Both statuses are walked by an index on what is in flight.
        let rows: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "SELECT workflow_uuid, name, inputs FROM dbos.workflow_status
             WHERE status IN ('ENQUEUED', 'DELAYED') AND queue_name = $1 AND name = ANY($5)
               AND (application_name = $2 OR application_name IS NULL)
               AND (application_version = $3 OR application_version IS NULL)
               AND (status = 'ENQUEUED' OR delay_until_epoch_ms <= (extract(epoch FROM now()) * 1000)::bigint)
             ORDER BY priority, created_at LIMIT $4",
        )
        .bind(INTERNAL_QUEUE)
        .bind(&self.app_name)
        .bind(&self.app_version)
        .bind(limit)
        .bind(names)
        .fetch_all(&self.pool)
        .await?;
        let row = |(workflow_uuid, name, input)| QueuedRow {
            workflow_uuid,
            name,
            input,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Takes workflows out of the queue that were resumed while these executions carry them out: by workflow, and by what
    /// the execution calls itself.
    pub(crate) async fn still_running(&self, running: &[(&str, &str)]) -> Result<(), StoreError> {
        let (ids, owners): (Vec<&str>, Vec<&str>) = running.iter().copied().unzip();
        sqlx::query(
            "UPDATE dbos.workflow_status w SET status = 'PENDING'
             FROM unnest($1::text[], $2::text[]) AS a (id, owner)
             WHERE w.workflow_uuid = a.id AND w.owner_xid = a.owner AND w.status = 'ENQUEUED'",
        )
        .bind(ids)
        .bind(owners)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Cancels a workflow, as a client of the engine does.
    pub(crate) async fn cancel(&self, workflow_id: &str) -> Result<(), SystemDbError> {
        self.engine
            .cancel_workflows(&[workflow_id], false, None)
            .await
            .map(drop)
            .map_err(|error| SystemDbError(error.to_string()))
    }

    /// Registers this version with the engine, whose clients ask which is the latest one.
    pub(crate) async fn register_version(&self) -> Result<(), SystemDbError> {
        self.engine
            .create_application_version(&self.app_version, None)
            .await
            .map_err(|error| SystemDbError(error.to_string()))
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
