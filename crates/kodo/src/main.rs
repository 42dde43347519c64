//! `kodo`: the binary. Command line, configuration, telemetry, wiring; everything else is in the crates.

// They panic if nothing reads: `output.rs` decides what a failed write means.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod boot;
mod cli;
mod commands;
mod descriptors;
mod devdb;
mod doctor;
mod environment;
mod log_writer;
#[cfg_attr(not(feature = "opencode"), path = "opencode_absent.rs")]
mod opencode;
mod output;
mod planner;
mod ports;
mod sandbox;
mod say;
mod settings;
mod table;
mod telemetry;
mod tools;
mod trouble;

use std::process::ExitCode;

use clap::FromArgMatches;

fn main() -> ExitCode {
    // Before there is anything else in this process, threads above all.
    kodo_jail::be_the_helper_if_asked();
    #[cfg(feature = "microvm")]
    kodo_microvm::be_the_emulator_if_asked();
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return commands::help_or_usage(&error),
    };
    let command = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.command,
        Err(error) => return commands::help_or_usage(&error),
    };
    let given = settings::Given::of(&matches);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return commands::fail(&anyhow::Error::new(error)),
    };
    let outcome = runtime.block_on(commands::run(&given, command));
    // What still runs in the background (a DNS look-up, a shutdown that hangs) must not hold the exit.
    runtime.shutdown_background();
    let code = match outcome {
        Ok(code) => code,
        Err(error) => commands::fail(&error),
    };
    telemetry::flush();
    code
}
