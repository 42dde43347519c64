//! `kodo db …`: the development server and the product schema.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use kodo_engine::Rebound;
use kodo_store::{Binding, Part, Store};

use crate::boot;
use crate::cli::DbCommand;
use crate::devdb::{self, DevDbConfig, Probe};
use crate::output;
use crate::settings::Settings;
use crate::{telemetry, trouble};

/// Runs one of them; each prints one line that says what it did.
pub(crate) async fn run(settings: &Settings, command: DbCommand) -> anyhow::Result<ExitCode> {
    telemetry::init_for_people()?;
    let mut code = ExitCode::SUCCESS;
    let done = match command {
        DbCommand::Up => devdb::up(&devdb_config(settings)).await?.message,
        DbCommand::Down => devdb::down(&devdb_config(settings)).await?.1,
        DbCommand::Status => {
            let status = devdb::status(&devdb_config(settings)).await;
            if status.probe != Probe::Postgres {
                code = ExitCode::FAILURE;
                status.message
            } else {
                let (usable, message) = usable(settings, status.message).await;
                if !usable {
                    code = ExitCode::FAILURE;
                }
                message
            }
        }
        DbCommand::Migrate => {
            let store = Store::new(&settings.app, 2);
            boot::prepare(settings, &store).await?;
            format!("db: schema app of {} is up to date", settings.app.database)
        }
        DbCommand::Seed => {
            // That there is none, or that it does not let us in, is nothing that a migration mends.
            settings.app.connect("kodo-seed").await?;
            let store = Store::new(&settings.app, 2);
            store
                .seed()
                .await
                .context("the seed needs a migrated schema (kodo db migrate)")?;
            format!("db: seeded {}", settings.app.database)
        }
        DbCommand::Reset => {
            let store = Store::new(&settings.app, 2);
            settings.app.ensure_exists().await?;
            store.drop_schema().await?;
            boot::prepare(settings, &store).await?;
            store.seed().await?;
            format!(
                "db: reset schema app of {}: dropped, migrated, seeded",
                settings.app.database
            )
        }
        DbCommand::SysReset => {
            settings.system.ensure_exists().await?;
            kodo_engine::reset_system_schema(&settings.system).await?;
            format!("db: reset schema dbos of {}", settings.system.database)
        }
        DbCommand::Rebind => rebind(settings).await?,
    };
    output::print(done + "\n")?;
    Ok(code)
}

/// A line about each database that is of no use. Returns false if a start would not get past it.
async fn usable(settings: &Settings, mut message: String) -> (bool, String) {
    let mut usable = true;
    for part in [Part::Product, Part::System] {
        let Some(trouble) = trouble::look(settings, part).await else {
            continue;
        };
        usable &= trouble.cause.is_mended_by_a_start();
        let line = format!("\ndb: {trouble}");
        // The server's own is told once.
        if !message.ends_with(&line) {
            message += &line;
        }
    }
    (usable, message)
}

/// Binds the product database to the system database of the settings, unless somebody works on it from the one that it
/// is bound to. Returns what was done.
async fn rebind(settings: &Settings) -> anyhow::Result<String> {
    let (product, system) = (&settings.app.database, &settings.system.database);
    // A start makes a product database that is not there; here a mistyped name is the likelier reason.
    drop(settings.app.connect("kodo-rebind").await?);
    let store = Store::new(&settings.app, 4);
    // A schema of before there were bindings is bound to nothing; one that is bound is not touched by a refusal.
    if store.binding().await? == Binding::Free {
        boot::prepare(settings, &store).await?;
    }
    Ok(
        match kodo_engine::rebind(&store, &settings.app, &settings.system).await? {
            Rebound::Bound => format!("db: {product} belongs to {system}"),
            Rebound::Moved { from } => format!(
                "db: {product} belongs to {system} now, and no longer to {from}: the next start begins its unfinished runs \
             anew"
            ),
        },
    )
}

/// What the development server needs to know.
pub(crate) fn devdb_config(settings: &Settings) -> DevDbConfig {
    let compose_file = Path::new("compose.yaml");
    DevDbConfig {
        host: settings.app.host.clone(),
        port: settings.app.port,
        user: settings.app.user.clone(),
        password: settings.app.password.clone(),
        data_dir: settings.data_dir.path().to_owned(),
        compose_file: compose_file.is_file().then(|| compose_file.to_owned()),
        provider: settings.database.db_provider,
    }
}
