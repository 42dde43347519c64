//! `kodo workflow list|get|steps`: the system database, for people and programs.

mod get;
mod list;
mod steps;

use std::process::ExitCode;

use kodo_contract::Timestamp;
use kodo_engine::{InspectError, Inspector};

use crate::cli::WorkflowCommand;
use crate::commands::NOT_FOUND;
use crate::output;
use crate::settings::Settings;

/// Runs one of them. An id that does not exist ends with exit code 3.
pub(crate) async fn run(settings: &Settings, command: WorkflowCommand) -> anyhow::Result<ExitCode> {
    let shown = async {
        let mut inspector = Inspector::connect(&settings.system).await?;
        match command {
            WorkflowCommand::List { limit, output } => {
                list::run(&mut inspector, limit, output.format).await
            }
            WorkflowCommand::Get { id, output } => {
                get::run(&mut inspector, &id, output.format).await
            }
            WorkflowCommand::Steps { id, output } => {
                steps::run(&mut inspector, &id, output.format).await
            }
        }
    };
    match shown.await {
        Ok(text) => {
            output::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ InspectError::NotFound(_)) => {
            output::tell(format_args!(
                "kodo: {error}; `kodo workflow list` shows those there are"
            ));
            Ok(ExitCode::from(NOT_FOUND))
        }
        Err(error) => Err(error.into()),
    }
}

/// A time for a table cell.
fn cell_time(time: Option<&Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), Timestamp::to_string)
}

/// A text for a table cell.
fn cell(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty())
        .unwrap_or("-")
        .to_owned()
}
