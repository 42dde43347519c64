//! `kodo artifacts list|get|workspace|verify|gc`: what runs produced, in rows and in the store.

mod gc;
mod get;
mod list;
mod verify;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context, ensure};
use kodo_store::content::{ArtifactStore, ObjectArtifacts};
use kodo_store::{Part, Store};

use crate::cli::ArtifactsCommand;
use crate::output;
use crate::settings::Settings;
use crate::trouble;

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
        settings.app.check_schema().await?;
        let instance = rows.instance().await.with_context(place)?;
        let store = settings.artifacts.look()?.of_instance(&instance);
        Ok(Self { rows, store })
    }

    /// The same, for what proves or removes something: refuses a folder that does not exist, and a store that is not the
    /// one of the product database. A mistyped name must not look like a store in which all is well, or all is lost.
    async fn open_its_own(settings: &Settings) -> anyhow::Result<Self> {
        let opened = Self::open(settings).await?;
        ensure!(
            !opened.store.is_missing_folder(),
            "there is no folder {}: ARTIFACT_STORE (or KODO_DATA_DIR) says where it is",
            opened.store.place()
        );
        opened.rows.check_artifacts(&opened.store).await?;
        Ok(opened)
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
        ArtifactsCommand::Workspace { run } => {
            workspace::run(&Artifacts::open(settings).await?, &run).await
        }
        ArtifactsCommand::Adopt => {
            let artifacts = Artifacts::open(settings).await?;
            artifacts.rows.adopt_artifacts(&artifacts.store).await?;
            let place = artifacts.store.place();
            let database = &settings.app.database;
            output::print(format!("artifacts: {place} is the store of {database}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        ArtifactsCommand::Verify { output } => Ok(match Artifacts::open_its_own(settings).await {
            Ok(artifacts) => verify::run(&artifacts, output.format).await,
            Err(error) => {
                let error = trouble::explained(settings, Part::Product, error).await;
                verify::unproven(&error)
            }
        }),
        ArtifactsCommand::Gc {
            dry_run,
            grace,
            output,
        } => {
            gc::run(
                &Artifacts::open_its_own(settings).await?,
                dry_run,
                grace,
                output.format,
            )
            .await
        }
    }
}
