//! The verbs of `kodo-dev`.

mod chaos;
mod course;
mod demo;
mod prove_demo;
mod scripted_model;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The repository's own tools; `mise` tasks and `scripts/kodo` run them.
#[derive(Debug, Parser)]
#[command(name = "kodo-dev", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which tool.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start runs while services and the database are killed, and count afterwards
    Chaos(chaos::Options),
    /// Run docs/course.md: its commands, in order, against what it says they print
    Course(course::Args),
    /// Show runs that survive kill -9; `scripts/kodo demo` calls it
    Demo(demo::Args),
    /// Run the completion bar of docs/course.md claim by claim; `scripts/kodo prove --demo` calls it
    ProveDemo(prove_demo::Args),
    ScriptedModel(scripted_model::ScriptedModelArgs),
}

/// Runs one of them. An error is printed by the caller and ends with exit code 2.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Chaos(options) => chaos::run(&options),
        Command::Course(args) => course::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::ProveDemo(args) => prove_demo::run(&args),
        Command::ScriptedModel(args) => scripted_model::run(args),
    }
}
