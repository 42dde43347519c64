//! One file a verb.

mod db;
mod dev;
mod prove;
mod serve;
mod workflow;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::demo;
use crate::settings::Settings;

/// Exit code of a look-up that found nothing, so that a script can tell it from a failure.
pub(crate) const NOT_FOUND: u8 = 3;

/// Runs the command. An error is printed by the caller and ends with exit code 1.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(&cli.flags) {
        // Its exit code 1 says that an invariant is violated.
        Err(error) if matches!(cli.command, Command::Prove(_)) => {
            return Ok(prove::unproven(&error));
        }
        settings => settings?,
    };
    match cli.command {
        Command::Serve => serve::run(settings).await,
        Command::Dev(place) => dev::run(settings, place).await,
        Command::Db(command) => db::run(&settings, command).await,
        Command::Workflow(command) => workflow::run(&settings, command).await,
        Command::Prove(args) => Ok(prove::run(&settings, args).await),
        Command::Demo(args) => demo::run(&settings, args).await,
    }
}

/// Says on one line why the command failed, causes included.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("kodo: {error:#}");
    ExitCode::FAILURE
}
