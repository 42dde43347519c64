//! Demonstrations: the product's claims, shown with the real binary, real signals and real rows.

mod bar;
mod crash;
mod main_job;
pub(crate) mod say;
mod signal;
mod work;

use std::process::ExitCode;

use crate::cli::{DemoArgs, DemoCommand};
use crate::settings::Settings;

pub(crate) use bar::run as completion_bar;

/// Runs one of them. Exit code 0 means that what it shows was so.
pub(crate) async fn run(settings: &Settings, args: DemoArgs) -> anyhow::Result<ExitCode> {
    match args.which {
        None => {
            let shown = main_job::run(settings).await?;
            println!();
            work::run(settings, true).await?;
            main_job::next();
            Ok(shown)
        }
        Some(DemoCommand::Crash) => crash::run(settings).await,
        Some(DemoCommand::Work { allow_none }) => work::run(settings, allow_none).await,
    }
}
