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

use kodo_store::Part;

use crate::cli::{Command, DbCommand};
use crate::settings::{Given, Settings};
use crate::{output, trouble};

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
        Command::Db(command) => {
            let settings = settings?;
            let part = match command {
                DbCommand::SysReset => Part::System,
                _ => Part::Product,
            };
            let done = db::run(&settings, command).await;
            explained(&settings, part, done).await
        }
        Command::Workflow(command) => {
            let settings = settings?;
            let done = workflow::run(&settings, command).await;
            explained(&settings, Part::System, done).await
        }
        Command::Artifacts(command) => {
            let settings = settings?;
            let done = artifacts::run(&settings, command).await;
            explained(&settings, Part::Product, done).await
        }
        Command::Oc(command) => oc::run(&settings?, command).await,
        Command::Demo(args) => settings.and_then(|_| demo::run(given, &args)),
    }
}

/// The outcome of a command that works on a database, with what is wrong with that one in its error.
async fn explained(
    settings: &Settings,
    part: Part,
    done: anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match done {
        Ok(code) => Ok(code),
        Err(error) => Err(trouble::explained(settings, part, error).await),
    }
}

/// Says on one line why the command failed, causes included.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    output::tell(format_args!("kodo: {error:#}"));
    ExitCode::FAILURE
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
