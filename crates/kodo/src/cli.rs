//! The command line, as people see it.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Command as ClapCommand, CommandFactory, Parser, Subcommand, ValueEnum};

use kodo_sandbox::Limits;
use serde_json::json;

use crate::settings::with_settings;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold());

/// An intent becomes a durable run, and kill -9 costs nothing.
#[derive(Debug, Parser)]
#[command(name = "kodo", version, styles = STYLES, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The last line of every command's help but `serve`'s.
const SETTINGS: &str =
    "Settings: a flag or an environment variable each; `kodo serve --help` lists them.";

/// The command line: the commands, and the settings, which all of them take.
pub(crate) fn command() -> ClapCommand {
    with_settings(pointing_to_settings(Cli::command()))
}

fn pointing_to_settings(command: ClapCommand) -> ClapCommand {
    let command = command.mut_subcommands(pointing_to_settings);
    if command.get_name() == "serve" {
        return command;
    }
    let after = command.get_after_help().map(|text| format!("{text}\n\n"));
    command.after_help(after.unwrap_or_default() + SETTINGS)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service: product API, admin API and a worker
    Serve,
    /// Run the service with a database of its own: finds or starts Postgres, migrates, serves
    Dev,
    /// The product database and the development server that holds it
    #[command(subcommand)]
    Db(DbCommand),
    /// Show workflows of the DBOS system database
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Artifacts of runs: list them, get them, check their hashes, remove what no run names
    #[command(subcommand)]
    Artifacts(ArtifactsCommand),
    /// The planner's fixtures: show, check, compare and record them
    #[command(subcommand)]
    Oc(OcCommand),
    /// Check the rows of both databases against every invariant, also while the service runs
    Prove(ProveArgs),
    /// Say what is wrong on this machine and what to do about it; works when nothing else does
    Doctor(DoctorArgs),
    /// Run programs in the live sandbox, whatever SBX_MODE is
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// See runs survive kill -9, shown from the database
    Demo(DemoArgs),
}

/// `kodo db …`
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Make a Postgres answer at DB_HOST:DB_PORT: use, start or fetch one
    Up,
    /// Stop the Postgres that `up` started, and nothing else
    Down,
    /// Say what answers at DB_HOST:DB_PORT
    Status,
    /// Apply the migrations of schema app
    Migrate,
    /// Insert the seed rows of schema app
    Seed,
    /// Drop schema app, migrate, seed
    Reset,
    /// Drop and recreate schema dbos of the system database
    SysReset,
    /// Bind the product database to another system database (SYS_DB_NAME)
    ///
    /// Refused while a service works on it from the system database that it is bound to. What is recorded there is given up:
    /// the next start begins the unfinished runs anew.
    Rebind,
}

/// `kodo workflow …`
#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// List the newest workflows
    List {
        /// How many at most
        #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Show one workflow
    // The task dbos:workflow:status calls it so.
    #[command(alias = "status")]
    Get {
        /// The workflow's id; a run's workflow has the run's id
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the recorded steps of one workflow, in order
    Steps {
        /// The workflow's id
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

/// `kodo artifacts …`
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactsCommand {
    /// List the artifacts of a run; exit code 3 if there is no such run
    List {
        /// The run's id
        run: String,
        #[command(flatten)]
        output: Output,
    },
    /// Write the content of an artifact to standard output; exit code 3 if no artifact has this hash
    Get {
        /// Its sha256, 64 hexadecimal digits
        sha256: String,
    },
    /// Write the workspace of a run to standard output, as a tar archive; exit code 3 if it has none
    Workspace {
        /// The run's id
        run: String,
    },
    /// Compare every artifact with its hash, reading all stored content
    #[command(
        after_help = "Exit codes: 0 every artifact is whole; 1 one is missing or does not fit its hash; 2 nothing is \
                      proven, because the database or the store cannot be reached."
    )]
    Verify {
        #[command(flatten)]
        output: Output,
    },
    /// Make this store the one of the product database, whose own was lost or moved here without its mark
    Adopt,
    /// Remove from the store what no run names; safe while services run
    Gc {
        /// Print what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Keep what was written within this many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        grace: u32,
        #[command(flatten)]
        output: Output,
    },
}

/// `kodo oc …`
///
/// A QUESTION is the key of a fixture (a unique prefix is enough), `default`, or the file of an intent (NAME.json), which
/// is looked up with the seed of TEST_SEED.
#[derive(Debug, Subcommand)]
pub(crate) enum OcCommand {
    /// Show the fixture that answers a question; exit code 3 if there is none
    Show {
        /// A fixture's key or its beginning, `default`, or the file of an intent
        question: String,
        #[command(flatten)]
        output: Output,
    },
    /// Check every fixture: its shape, its key, its plan; exit code 1 if one is wrong
    Verify {
        #[command(flatten)]
        output: Output,
    },
    /// Compare two answers, or one with what the model answers now; exit code 1 if they differ
    Diff {
        /// A fixture's key or its beginning, `default`, the file of a fixture, or the file of an intent
        a: String,
        /// The same; without it, the model is asked
        b: Option<String>,
    },
    /// Ask the model (OC_BASE_URL, OC_MODEL) and keep its answers as fixtures; without a question, ask those of all fixtures
    Record {
        /// A fixture's key or its beginning, or the file of an intent
        questions: Vec<String>,
        /// Keep the answer to this intent as the default fixture, too
        #[arg(long, value_name = "INTENT.json")]
        default: Option<PathBuf>,
    },
}

/// `kodo sandbox …`
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Run one job, and end with its exit code; 125 if it was refused or could not be run
    #[command(
        after_help = "Example: kodo sandbox run --file ./build.sh:build.sh --limit wallMs=5000 -- sh build.sh\n\n\
        Exit codes: the job's own; 128 and the signal if one ended it; 137 if a limit did; 127 and 126 if the \
        program is not there or cannot be run; 125 if nothing was run; 2 for a wrong command line."
    )]
    Run(SandboxRun),
}

/// `kodo sandbox run …`
#[derive(Debug, Args)]
pub(crate) struct SandboxRun {
    /// Puts a file of this machine into the job's folder
    #[arg(long = "file", value_name = "HOST_PATH:NAME", value_parser = file_of_a_job)]
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Sets a variable of the job's environment
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = variable_of_a_job)]
    pub(crate) env: Vec<(String, String)>,
    /// The job's working folder, relative to the job's folder
    #[arg(long, value_name = "FOLDER", default_value = "")]
    pub(crate) cwd: String,
    /// Sets a limit: wallMs, memoryBytes, processes, outputBytes, keptBytes, diskBytes, inodes, openFiles,
    /// returnedBytes, returnedFiles
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = limit_of_a_job)]
    pub(crate) limits: Vec<(String, u64)>,
    /// Says on standard error what the job was refused, and by which rule: calls of the kernel, files, addresses. Only with
    /// SBX_PROVIDER=process; the job is slower
    #[arg(long)]
    pub(crate) explain: bool,
    /// Writes the files that the job left into this folder of this machine, which must not exist
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// What the job printed, or the whole result as JSON
    #[arg(
        long = "output",
        short = 'o',
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) format: RunFormat,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
}

fn file_of_a_job(word: &str) -> Result<(PathBuf, String), &'static str> {
    // Split at the last colon: a path of the machine contains one more often than a name in the job's folder.
    let (path, name) = word.rsplit_once(':').ok_or("HOST_PATH:NAME is accepted")?;
    Ok((path.into(), name.to_owned()))
}

fn variable_of_a_job(word: &str) -> Result<(String, String), &'static str> {
    let (key, value) = word.split_once('=').ok_or("KEY=VALUE is accepted")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn limit_of_a_job(word: &str) -> Result<(String, u64), String> {
    let (name, number) = word
        .split_once('=')
        .and_then(|(name, number)| Some((name, number.parse().ok()?)))
        .ok_or("NAME=NUMBER is accepted")?;
    // Limits knows the names.
    serde_json::from_value::<Limits>(json!({name: number})).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), number))
}

/// Output formats of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunFormat {
    /// What the job printed, on the two streams
    Text,
    /// One JSON document
    Json,
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// A table for people or JSON for programs
    #[arg(
        long = "output",
        short = 'o',
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) format: Format,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    Table,
    /// One JSON document
    Json,
}

/// `kodo prove`
#[derive(Debug, Clone, Copy, Args)]
#[command(
    after_help = "Writes nothing but temporary tables of its own session. A violation that may be temporary is looked \
                  at again until it is gone, or has lasted longer than a working service takes to repair it.\n\n\
                  Exit codes: 0 every invariant holds; 1 one is violated; 2 nothing is proven, because a database \
                  cannot be reached or is not migrated, or a setting is wrong."
)]
pub(crate) struct ProveArgs {
    #[command(flatten)]
    pub(crate) output: Output,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Look only at so many runs, those that were made last, with their steps, artifacts and workflows [default: all]
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) newest: Option<i64>,
    /// Run the completion bar of docs/course.md instead and report claim by claim; needs a checkout
    #[arg(long, conflicts_with_all = ["format", "json", "newest"])]
    pub(crate) demo: bool,
}

/// `kodo doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Seconds after which a check that has not ended is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) patience: u64,
    /// Mend what can be mended, after asking: end the session that keeps a launch lock which no live service holds
    #[arg(long, conflicts_with = "format")]
    pub(crate) fix: bool,
    /// With --fix: do not ask
    #[arg(long, requires = "fix")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `kodo demo …`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    pub(crate) which: Option<DemoCommand>,
}

/// Which demonstration; without one, the main job.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Kill the service between the two effects of the crash demo (walkthrough B of the course)
    Crash,
    /// Make failing tests pass in a jail, with a kill -9 in the middle (walkthrough K of the course)
    Work {
        /// End with exit code 0 and say so if this machine cannot jail
        #[arg(long)]
        allow_none: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
