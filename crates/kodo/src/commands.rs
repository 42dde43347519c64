//! One file a verb.

mod artifacts;
pub(crate) mod db;
mod demo;
mod dev;
mod doctor;
mod oc;
mod prove;
mod sandbox;
mod serve;
mod workflow;

use std::io::ErrorKind;
use std::process::ExitCode;

use kodo_engine::InspectError;
use kodo_store::StoreError;

use crate::cli::Command;
use crate::output;
use crate::settings::{Given, Settings};

/// Exit code of a look-up that found nothing, so that a script can tell it from a failure.
pub(crate) const NOT_FOUND: u8 = 3;

/// Runs the command. An error is printed by the caller and ends with exit code 1.
pub(crate) async fn run(given: &Given, command: Command) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(given);
    match command {
        // A setting that cannot be read is one of its findings.
        Command::Doctor(args) => doctor::run(given, args).await,
        // Its exit code 1 says that an invariant is violated.
        Command::Prove(args) => Ok(match settings {
            Ok(_) if args.demo => return demo::completion_bar(given),
            Ok(settings) => prove::run(&settings, args).await,
            Err(error) => prove::unproven(&error),
        }),
        // Its exit code 1 is the job's.
        Command::Sandbox(command) => Ok(sandbox::run(settings, command).await),
        Command::Serve => serve::run(settings?).await,
        Command::Dev => dev::run(settings?).await,
        Command::Db(command) => db::run(&settings?, command).await,
        Command::Workflow(command) => workflow::run(&settings?, command).await,
        Command::Artifacts(command) => artifacts::run(&settings?, command).await,
        Command::Oc(command) => oc::run(&settings?, command).await,
        Command::Demo(args) => settings.and_then(|_| demo::run(given, &args)),
    }
}

/// Says on one line why the command failed, causes included.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    output::tell(format_args!("kodo: {error:#}{}", hint(error)));
    ExitCode::FAILURE
}

/// What to do about a server that is away, unless the error says so.
fn hint(error: &anyhow::Error) -> &'static str {
    let away = |error: &StoreError| matches!(error, StoreError::Unavailable(sqlx::Error::Io(_)));
    let is_away = error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(away)
            || matches!(cause.downcast_ref(), Some(InspectError::Store(error)) if away(error))
    });
    match is_away && !format!("{error:#}").contains("db:up") {
        true => " (`bin/mise run db:up` starts one; DB_HOST and DB_PORT say where it is)",
        false => "",
    }
}

/// Prints the help or the version that was asked for, or what is wrong with the command line.
pub(crate) fn help_or_usage(error: &clap::Error) -> ExitCode {
    let printed = error
        .print()
        .and_then(|()| std::io::Write::flush(&mut std::io::stdout()));
    match printed {
        Err(failed) if !error.use_stderr() && failed.kind() != ErrorKind::BrokenPipe => {
            fail(&anyhow::Error::new(failed).context("cannot write to standard output"))
        }
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
    }
}
