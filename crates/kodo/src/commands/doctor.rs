//! `kodo doctor`: every check, and what it found.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{DoctorArgs, Format};
use crate::doctor::{Report, break_launch_lock, examine};
use crate::output;
use crate::settings::{Given, Settings};

/// Prints the findings. Exit code 1 where one of them is a problem.
pub(crate) async fn run(given: &Given, args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let report = examine(given, Duration::from_secs(args.patience)).await;
    let text = match args.output.format {
        Format::Json => output::json(&report),
        Format::Table => table(&report),
    };
    output::print(&text)?;
    if args.fix {
        fix(given, args.yes).await?;
    }
    Ok(if report.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Breaks a launch lock that no live service holds, after asking.
async fn fix(given: &Given, yes: bool) -> anyhow::Result<()> {
    let settings = Settings::load(given)?;
    let done = break_launch_lock(settings, |lock| {
        yes || ask(&format!("end {lock}, which has the launch lock? [yes/no] "))
    })
    .await?;
    let done = done.unwrap_or_else(|| "there is nothing that it can mend".to_owned());
    output::print(format!("doctor: {done}\n"))?;
    Ok(())
}

/// Asks on the terminal. No without one.
fn ask(question: &str) -> bool {
    let mut answer = String::new();
    std::io::stdin().is_terminal()
        && output::print(question).is_ok_and(|read| read)
        && std::io::stdin().read_line(&mut answer).is_ok()
        && answer.trim() == "yes"
}

/// A line a finding, its next command below it, and a line that sums up.
fn table(report: &Report) -> String {
    let mut text = String::new();
    let checks = report.findings.iter().map(|finding| finding.check.len());
    let width = checks.max().unwrap_or_default();
    for finding in &report.findings {
        let level = finding.level.name();
        text += &format!("{level:<8} {:<width$} {}\n", finding.check, finding.what);
        if let Some(next) = &finding.next {
            text += &format!("{:1$}next: {next}\n", "", width + 10);
        }
    }
    text + &report.summary() + "\n"
}
