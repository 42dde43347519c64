//! `kodo serve`: ports first, then the database, then work; and the way back.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use kodo_engine::EngineHandle;
use kodo_server::{
    ApiToken, App, Readiness, ServerConfig, Shutdown, admin_router, origins_of, product_router,
    serve,
};
use kodo_store::Store;
use kodo_store::content::ArtifactStoreCell;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::boot::{SPOOL, boot};
use crate::descriptors::room_for_clients;
use crate::ports::Ports;
use crate::settings::Settings;
use crate::telemetry;

/// Beyond the grace period for steps and requests, how long stopping everything else may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Most clients of the admin API: probes of this machine.
const ADMIN_CONNECTIONS: usize = 64;

/// Runs the service until a signal ends it.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    settings.artifacts.check_data_dir(&settings.data_dir)?;
    let lost = telemetry::init(&settings.log)?;
    let ports = Ports::bind(&settings).await?;
    run_on(settings, ports, lost).await
}

/// The same, on ports that are bound; `lost_log_lines` is what [`telemetry::init`] returned.
pub(crate) async fn run_on(
    settings: Settings,
    ports: Ports,
    lost_log_lines: Arc<AtomicU64>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let store = Store::new(&settings.app, settings.database.db_pool_size);
    let readiness = Readiness::new().counting(lost_log_lines);
    let artifacts = ArtifactStoreCell::default();
    let engine = EngineHandle::of(&settings.system);
    let address = ports.product.local_addr()?;
    let app = App::new(
        ServerConfig {
            api_token: settings
                .api_token
                .as_ref()
                .and_then(|token| ApiToken::new(token.expose())),
            allowed_origins: origins_of(&settings.api.host.to_string(), address.port()),
            max_upload_bytes: settings.api.max_upload_bytes,
            max_uploads_together_bytes: settings.api.max_uploads_together_bytes,
            upload_folder: settings.data_dir.join(SPOOL)?,
            ..ServerConfig::default()
        },
        store.clone(),
        artifacts.clone(),
        engine.clone(),
        readiness.clone(),
    );
    tracing::info!(product = %address, admin = %ports.admin.local_addr()?, "listening");
    let shutdown = Shutdown::new();
    let product = tokio::spawn(serve(
        ports.product,
        product_router(&app),
        shutdown.clone(),
        settings.api.drain_grace,
        room_for_clients(settings.api.max_connections),
    ));
    let admin = tokio::spawn(serve(
        ports.admin,
        admin_router(&app),
        shutdown.clone(),
        settings.api.drain_grace,
        ADMIN_CONNECTIONS,
    ));

    let working = async {
        boot(&settings, &store, &artifacts, &readiness, &engine).await?;
        let executor = engine.launched().await;
        tracing::info!(executor, "ready: POST http://{address}/intents");
        engine.ended().await;
        // Not by a signal, so by a bug. Whoever restarts this process does more good than its going on.
        anyhow::bail!("the workflow engine's supervisor ended")
    };
    let ended = tokio::select! {
        // Comes to an end only where something is wrong.
        failed = working => failed,
        name = signals.next() => {
            tracing::info!(signal = name, "draining: no new work; a second signal ends at once");
            Ok(())
        }
    };

    let drain = async {
        // The engine first: it is what /readyz and the routes ask whether this process still takes work.
        engine.begin_drain();
        shutdown.begin();
        // Both ports answer for as long as a step is at work, or a request.
        let engine = async {
            let finished = engine.drain(settings.api.drain_grace).await;
            shutdown.finish();
            finished
        };
        let (finished, product, admin) = tokio::join!(engine, product, admin);
        if !finished {
            tracing::warn!(
                "a step did not finish in time; its run goes on elsewhere or at the next start"
            );
        }
        product.context("the product API")?;
        admin.context("the admin API")?;
        store.close().await;
        anyhow::Ok(())
    };
    let drain = tokio::time::timeout(settings.api.drain_grace + STOP_TIMEOUT, drain);
    tokio::select! {
        drained = drain => match drained {
            Ok(drained) => drained?,
            // What is left is committed or will be done again; holding the exit helps nobody.
            Err(_) => tracing::warn!("the drain did not finish in time"),
        },
        name = signals.another() => {
            tracing::warn!(signal = name, "ending at once; what ran is recovered at the next start");
            return Ok(ExitCode::FAILURE);
        }
    }
    ended?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The one that came first, and when.
    first: Option<(&'static str, Instant)>,
}

/// The same signal again within this time is the same request: Ctrl-C reaches a process from its terminal, and
/// once more from whoever started it and passes signals on.
const ECHO: Duration = Duration::from_millis(500);

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
            first: None,
        })
    }

    async fn next(&mut self) -> &'static str {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        self.first.get_or_insert_with(|| (name, Instant::now()));
        name
    }

    /// A signal that is not the first one's echo.
    async fn another(&mut self) -> &'static str {
        loop {
            let name = self.next().await;
            let echo = self
                .first
                .is_some_and(|(first, at)| first == name && at.elapsed() < ECHO);
            if !echo {
                return name;
            }
        }
    }
}
