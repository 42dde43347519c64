//! `kodo oc show|verify|diff|record`: the planner's fixtures, for people and programs. None of them needs a database.

mod diff;
mod question;
mod record;
mod show;
mod verify;

use std::process::ExitCode;

use crate::cli::OcCommand;
use crate::output;
use crate::settings::Settings;

/// What a command prints, and how it ends.
pub(crate) struct Printed {
    text: String,
    code: ExitCode,
}

impl Printed {
    fn new(text: String, code: ExitCode) -> Self {
        Self { text, code }
    }
}

/// Runs one of them.
pub(crate) async fn run(settings: &Settings, command: OcCommand) -> anyhow::Result<ExitCode> {
    let printed = match command {
        OcCommand::Show { question, output } => {
            show::run(settings, &question, output.format).await?
        }
        OcCommand::Verify { output } => verify::run(settings, output.format).await?,
        OcCommand::Diff { a, b } => diff::run(settings, &a, b.as_deref()).await?,
        OcCommand::Record { questions, default } => {
            record::run(settings, &questions, default.as_deref()).await?
        }
    };
    output::print(&printed.text)?;
    Ok(printed.code)
}

/// One line about an answer.
fn outline(fixture: &kodo_planner::Fixture) -> String {
    match &fixture.answer {
        Ok(plan) => {
            let names: Vec<&str> = plan
                .tool_calls
                .iter()
                .map(|call| call.name.as_str())
                .collect();
            format!(
                "plan of {} tool calls ({}), {} diffs",
                names.len(),
                names.join(", "),
                plan.diffs.len()
            )
        }
        Err(failure) => format!("failure {}: {failure}", failure.code.as_str()),
    }
}

/// Who gave an answer.
fn recorder(fixture: &kodo_planner::Fixture) -> String {
    match &fixture.recorded {
        Some(by) => format!(
            "{} ({}, prompt {})",
            by.model, by.provider, by.prompt_version
        ),
        None => "by hand".to_owned(),
    }
}
