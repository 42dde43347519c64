//! `kodo-dev course`: runs the operator's course and tells how each of its blocks went.

use std::path::Path;
use std::process::ExitCode;

use kodo_dev::course::{
    BlockReport, COURSE, Course, Event, Kind, Outcome, Report, Section, Skip, Stage, find_checkout,
};

use crate::interrupt::unless_interrupted;
use crate::say;
use crate::server::Server;

/// What to run, and on which server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this section and what it needs: how its heading begins, or the letter of a walkthrough
    #[arg(long, value_name = "HEADING")]
    section: Vec<String>,
    /// List the sections and their blocks, and run nothing
    #[arg(long)]
    list: bool,
    /// Leave out the blocks that take minutes
    #[arg(long)]
    fast: bool,
    /// Show what the blocks print
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    server: Server,
}

/// Runs it. Exit code 0 means that every block that was run holds.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checkout = find_checkout(&std::env::current_dir()?)?;
    let course = Course::read(&checkout.join(COURSE))?;
    let sections = course.select(&args.section)?;
    if args.list {
        list(&sections);
        return Ok(ExitCode::SUCCESS);
    }
    let played = on_stage(&checkout, &args.server, async |stage| {
        say::line(&format!("course: {COURSE} with {}", stage.describe()));
        let mut tell = |event: Event<'_>| tell(args.verbose, &event);
        kodo_dev::course::run(&sections, stage, args.fast, &mut tell).await
    });
    let report = tokio::runtime::Runtime::new()?.block_on(played)?;
    summary(&report);
    Ok(match report.holds() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Plays on a stage, and clears it away whatever came of it.
pub(super) async fn on_stage<T>(
    checkout: &Path,
    server: &Server,
    play: impl AsyncFnOnce(&Stage) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let stage = Stage::new(checkout.to_owned(), &server.database("postgres"))?;
    let played = unless_interrupted(play(&stage)).await;
    if let Err(error) = stage.clean_up().await {
        eprintln!("course: its databases are still there: {error:#}");
    }
    played
}

fn list(sections: &[&Section]) {
    for section in sections {
        let Section { line, title, .. } = section;
        say::line(&format!("{line:>5}  {} {title}", "#".repeat(section.level)));
        for block in &section.blocks {
            let how = match &block.kind {
                Kind::Illustration(reason) => format!("  # not run: {reason}"),
                Kind::Run(marks) if marks.slow => "  # slow".to_owned(),
                Kind::Run(_) => String::new(),
            };
            say::line(&format!("{:>5}      {}{how}", block.line, block.title()));
        }
    }
}

// Lines are told as `docs/course.md:57`, which editors and terminals can open.
fn tell(verbose: bool, event: &Event<'_>) {
    match event {
        Event::Section(section) if section.blocks.is_empty() => {}
        Event::Section(section) => say::line(&format!("\n{}", section.title)),
        Event::Begins(block) if verbose => {
            say::line(&format!("  line {}", block.line));
            indented("$ ", &block.code);
        }
        Event::Begins(_) => {}
        Event::Over(report) => over(verbose, report),
    }
}

fn over(verbose: bool, report: &BlockReport) {
    if verbose {
        indented("  ", &report.output);
    }
    let BlockReport { line, title, .. } = report;
    let seconds = report.took.as_secs_f64();
    match &report.outcome {
        Outcome::Held => say::line(&format!("  holds   {line:>6}  {seconds:>6.1} s  {title}")),
        Outcome::Skipped(skip) => {
            say::line(&format!("  not run {line:>6}            {title} ({skip})"))
        }
        Outcome::Failed(failure) => {
            say::line(&format!("  FAILED  {line:>6}  {seconds:>6.1} s  {title}"));
            say::line(&format!("\n{COURSE}:{}: {}", failure.line, failure.reason));
            indented("", &failure.detail);
            say::line("");
        }
    }
}

fn indented(mark: &str, text: &str) {
    for line in text.lines() {
        say::line(&format!("    {mark}{line}"));
    }
}

/// What was run and what was not, and why.
fn summary(report: &Report) {
    say::line(&format!(
        "\ncourse: {} blocks hold, {} failed, {} not run, in {:.0} s",
        report.held(),
        report.failures().count(),
        report.skipped().count(),
        report.took.as_secs_f64()
    ));
    for (block, skip) in report.skipped() {
        if !matches!(skip, Skip::After(_)) {
            say::line(&format!("course: not run: {COURSE}:{}: {skip}", block.line));
        }
    }
    for failure in report.failures() {
        say::line(&format!(
            "course: FAILED: {COURSE}:{}: {}",
            failure.line, failure.reason
        ));
    }
}
