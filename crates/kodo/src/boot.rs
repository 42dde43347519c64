//! From bound ports to a launched engine, in the order that design.md argues for.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use kodo_engine::{EngineConfig, EngineHandle, EngineSchema};
use kodo_sandbox::SecretFolder;
use kodo_server::Readiness;
use kodo_store::content::{ArtifactStore, ArtifactStoreCell, ObjectArtifacts};
use kodo_store::{
    DatabaseConfig, MarkError, Part, SchemaError, Store, StoreError, Trouble, waits_for,
};
use tokio::time::{Instant, timeout_at};

use crate::settings::Settings;
use crate::{planner, sandbox, trouble};

/// The oldest server that is supported, because it is the oldest that is tested.
pub(crate) const OLDEST_POSTGRES: i32 = 15;

/// The check of `/readyz` that fails while the schema is prepared.
const MIGRATIONS: &str = "migrations";

/// The check of `/readyz` that fails while the artifact store is of no use.
const ARTIFACT_STORE: &str = "artifactStore";

/// The folder for content on its way, in the data folder.
pub(crate) const SPOOL: &str = "spool";

/// Pause between two tries to reach Postgres.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Reaches the database, migrates it and starts the engine. Bounded by `DB_CONNECT_TIMEOUT_MS`.
///
/// # Errors
/// Where Postgres does not answer in time or refuses, or a newer version owns the schema.
pub(crate) async fn boot(
    settings: &Settings,
    store: &Store,
    artifact_cell: &ArtifactStoreCell,
    readiness: &Readiness,
    engine: &EngineHandle,
) -> anyhow::Result<()> {
    // Before the database: a machine that cannot hold a job is no place for work, nor one that cannot keep what
    // comes of it.
    let sandbox = sandbox::of(settings).await?;
    let artifacts = settings.artifacts.open().await?;
    let planner = planner::of(settings).await?;
    tokio::select! {
        prepared = prepare_for(settings, store, Some(&settings.system)) => prepared?,
        never = watch(settings, readiness) => match never {},
    }
    readiness.set_reason(MIGRATIONS, None);
    let deadline = Instant::now() + settings.database.db_connect_timeout;
    // At the start alone: whoever migrates the schema later does not stop a service that works.
    let schema = patiently(settings, Part::System, deadline, || {
        EngineSchema::of(&settings.system)
    })
    .await?;
    if let Some(refusal) = schema.refusal(settings.work.engine_schema_accept) {
        bail!("system database {:?}: {refusal}", settings.system.database);
    }
    let instance = patiently(settings, Part::Product, deadline, || store.instance()).await?;
    let artifacts = Arc::new(artifacts.of_instance(&instance));
    bind_artifacts(settings, deadline, store, &artifacts, readiness).await?;
    tracing::debug!(place = artifacts.place(), "artifact store");
    // Set before readiness says that the schema is there: a request that finds the schema finds the store.
    artifact_cell.set(artifacts.clone());
    readiness.set_migrated();
    engine.start(
        EngineConfig {
            instance,
            system: settings.system.clone(),
            max_concurrent_runs: settings.work.max_concurrent_runs,
            checkpoint_linger: settings.work.checkpoint_linger,
            max_concurrent_tool_calls: settings.work.max_concurrent_tool_calls,
            secrets: SecretFolder::new(settings.sbx_secrets_dir.clone()),
            most: settings.sbx_most,
            workspace: settings.sbx_workspace,
            spool: settings.data_dir.join(SPOOL)?,
            crash_demo_sleep: settings.work.wf_sleep,
            artifact_patience: settings.artifacts.patience,
            planner_patience: settings.planner.patience,
            seed: settings.work.test_seed,
        },
        store.clone(),
        artifacts,
        planner,
        sandbox,
    );
    Ok(())
}

/// Sees that the artifact store works and is the one that the rows name content in. Waits for one that is away.
async fn bind_artifacts(
    settings: &Settings,
    deadline: Instant,
    store: &Store,
    artifacts: &ObjectArtifacts,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    loop {
        match store.bind_artifacts(artifacts).await {
            Ok(()) => break,
            Err(error) if error.is_transient() && Instant::now() + TRY_AGAIN < deadline => {
                tracing::warn!(%error, "the start waits for the artifact store; trying again");
                readiness.set_reason(ARTIFACT_STORE, Some(error.to_string()));
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(error @ MarkError::Content(_)) => {
                return Err(error).with_context(|| settings.artifacts.does_not_work());
            }
            Err(error) => return Err(error.into()),
        }
    }
    readiness.set_reason(ARTIFACT_STORE, None);
    Ok(())
}

/// Makes the product database exist and brings schema `app` to this version's state.
///
/// # Errors
/// As [`boot`].
pub(crate) async fn prepare(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    prepare_for(settings, store, None).await
}

/// The same for work from a system database. One that the product database does not belong to is refused here, for good
/// and before the schema is touched; the engine looks again before every launch.
async fn prepare_for(
    settings: &Settings,
    store: &Store,
    system: Option<&DatabaseConfig>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + settings.database.db_connect_timeout;
    patiently(settings, Part::Product, deadline, || {
        settings.app.ensure_exists()
    })
    .await?;
    // Before anything is written to it.
    patiently(settings, Part::Product, deadline, || {
        settings.app.check_requirements()
    })
    .await?;
    let major = patiently(settings, Part::Product, deadline, || store.server_major()).await?;
    ensure!(
        major >= OLDEST_POSTGRES,
        "Postgres {major} is too old: {OLDEST_POSTGRES} or newer is needed"
    );
    if let Some(system) = system {
        patiently(settings, Part::Product, deadline, || {
            store.check_binding(system)
        })
        .await?;
    }
    let schema = patiently(settings, Part::Product, deadline, || {
        settings.app.schema_errors()
    })
    .await?;
    let schema = schema.into_iter().next();
    let is_older = matches!(
        schema,
        None | Some(SchemaError::Never { .. } | SchemaError::Pending { .. })
    );
    if let Some(error) = schema.clone().filter(|_| !is_older) {
        let error = StoreError::Schema(error);
        bail!(Trouble::told_by(&error, Part::Product, &settings.app));
    }
    if let Some(system) = system {
        // Made as soon as it is known that it may be: PgBouncer lets clients of a database that was not there wait.
        patiently(settings, Part::System, deadline, || system.ensure_exists()).await?;
        patiently(settings, Part::System, deadline, || {
            system.check_requirements_of_engine()
        })
        .await?;
    }
    if let Some(what) = schema {
        tracing::info!(%what, "applying migrations of schema app");
        patiently(settings, Part::Product, deadline, || store.migrate()).await?;
    }
    Ok(())
}

/// Looks who keeps sessions of ours in the product database waiting, and says so, for as long as it is polled.
async fn watch(settings: &Settings, readiness: &Readiness) -> Infallible {
    let mut told: Vec<i32> = Vec::new();
    loop {
        tokio::time::sleep(TRY_AGAIN).await;
        // That the server does not answer is for whoever waits for it to say.
        let blockers = settings.app.blockers().await.unwrap_or_default();
        let reason = waits_for(&blockers);
        let pids = blockers.iter().map(|blocker| blocker.pid).collect();
        if let Some(reason) = &reason
            && told != pids
        {
            tracing::warn!(reason, "the start waits");
        }
        told = pids;
        readiness.set_reason(MIGRATIONS, reason);
    }
}

/// Calls until Postgres answers, with one line an attempt, until the deadline.
async fn patiently<T, F, Fut>(
    settings: &Settings,
    part: Part,
    deadline: Instant,
    mut call: F,
) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let place = format!("Postgres at {}", settings.app.address());
    for attempt in 1.. {
        let error = match timeout_at(deadline, call()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let trouble = trouble::of(settings, part, &error).await;
                if error.is_denied() || !error.is_transient() {
                    return Err(anyhow!(trouble).context(format!("{place} answered, but")));
                }
                trouble.to_string()
            }
            Err(_) => "no answer (DB_HOST and DB_PORT say where it is)".to_owned(),
        };
        if Instant::now() + TRY_AGAIN >= deadline {
            bail!(
                "{place} did not become available within {:?}: {error}",
                settings.database.db_connect_timeout
            );
        }
        tracing::warn!(attempt, error, "{place} is not available yet; trying again");
        tokio::time::sleep(TRY_AGAIN).await;
    }
    unreachable!("the attempts are not bounded by number")
}
