//! `kodo dev`: a database, its migrations and the service, with one command.

use std::process::ExitCode;

use crate::commands::db::devdb_config;
use crate::commands::serve;
use crate::devdb;
use crate::ports::Ports;
use crate::settings::Settings;
use crate::telemetry;

/// Brings a server up if none answers, serves, and stops what it started on a clean exit.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    settings.artifacts.check_data_dir(&settings.data_dir)?;
    let lost = telemetry::init(&settings.log)?;
    // Ports first, here too: a second `kodo dev` must not get as far as the database.
    let ports = Ports::bind(&settings).await?;
    let config = devdb_config(&settings);
    let up = devdb::up(&config).await?;
    tracing::info!("{}", up.message);
    let served = serve::run_on(settings, ports, lost).await;
    if up.started {
        let (_, message) = devdb::down(&config).await?;
        tracing::info!("{}", message);
    }
    served
}
