//! `kodo doctor`: every check, and what it found.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{DoctorArgs, Format};
use crate::doctor::{Report, examine};
use crate::output;
use crate::settings::Given;

/// Prints the findings. Exit code 1 where one of them is a problem.
pub(crate) async fn run(given: &Given, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let report = examine(given, Duration::from_secs(args.patience)).await;
    let text = match args.output.format {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Table => table(&report),
    };
    output::print(&text)?;
    Ok(if report.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A line a finding, its next command below it, and a line that sums up.
fn table(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let level = finding.level.name();
        text += &format!("{level:<8} {:<14} {}\n", finding.check, finding.what);
        if let Some(next) = &finding.next {
            text += &format!("{:24}next: {next}\n", "");
        }
    }
    text + &report.summary() + "\n"
}
