//! `kodo-dev`: everything that only developers and CI run, each verb behind a `mise` task or `scripts/kodo demo`.

mod commands;
mod environment;
mod interrupt;
mod say;
mod server;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    commands::run(cli.command).unwrap_or_else(|error| {
        eprintln!("kodo-dev: {error:#}");
        ExitCode::from(2)
    })
}
