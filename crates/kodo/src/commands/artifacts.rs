//! `kodo artifacts list|get|verify|gc`: what runs produced, in rows and in the store.

mod gc;
mod get;
mod list;
mod verify;

use std::process::ExitCode;

use anyhow::{Context, ensure};
use kodo_store::content::ObjectArtifacts;
use kodo_store::{MigrationState, Store};
use serde::Serialize;

use crate::cli::ArtifactsCommand;
use crate::settings::Settings;

/// The rows and the store of one product database.
struct Artifacts {
    rows: Store,
    store: ObjectArtifacts,
}

impl Artifacts {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let rows = Store::new(&settings.app, 2);
        let place = || {
            let app = &settings.app;
            format!("database {:?} at {}", app.database, app.address())
        };
        let state = rows.migration_state().await.with_context(place)?;
        ensure!(
            state == MigrationState::AtHead,
            "{} is not migrated to this version: run kodo db migrate",
            place()
        );
        let instance = rows.instance().await.with_context(place)?;
        let store = settings.artifacts.open().await?.of_instance(&instance);
        Ok(Self { rows, store })
    }
}

/// Runs one of them.
pub(crate) async fn run(
    settings: &Settings,
    command: ArtifactsCommand,
) -> anyhow::Result<ExitCode> {
    match command {
        ArtifactsCommand::List { run, output } => {
            list::run(&Artifacts::open(settings).await?, &run, output.format).await
        }
        ArtifactsCommand::Get { sha256 } => {
            get::run(&Artifacts::open(settings).await?, &sha256).await
        }
        ArtifactsCommand::Verify { output } => Ok(match Artifacts::open(settings).await {
            Ok(artifacts) => verify::run(&artifacts, output.format).await,
            Err(error) => verify::unproven(&error),
        }),
        ArtifactsCommand::Gc {
            dry_run,
            grace,
            output,
        } => {
            gc::run(
                &Artifacts::open(settings).await?,
                dry_run,
                grace,
                output.format,
            )
            .await
        }
    }
}

/// Pretty JSON with a final line feed.
fn json<T: Serialize>(value: &T) -> String {
    // Serializing our own types to a string fails on nothing: their keys are strings.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
