//! `xtask`: the repository's own tools, each behind a `mise` task.

mod chaos;
mod course;
mod environment;
mod policy;
mod repository;
mod scripted_model;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The repository's own tools; `mise` tasks run them.
#[derive(Debug, Parser)]
#[command(name = "xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which tool.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start runs while services and the database are killed, and count afterwards
    Chaos(chaos::Options),
    /// Run docs/course.md: its commands, in order, against what it says they print
    Course(course::Args),
    /// Check the rules of this repository that no compiler knows
    Policy(policy::Arguments),
    ScriptedModel(scripted_model::ScriptedModelArgs),
    /// Run the same thing many times over
    Soak(soak::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Chaos(options) => chaos::run(&options),
        Command::Course(args) => course::run(&args),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::ScriptedModel(args) => scripted_model::run(args),
        Command::Soak(arguments) => soak::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(2)
    })
}
