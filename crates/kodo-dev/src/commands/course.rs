//! `kodo-dev course`: runs the operator's course and tells how each of its blocks went.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use kodo_dev::course::{
    BlockReport, Course, Event, Kind, Options, Outcome, Report, Section, Skip, Stage,
};

use crate::interrupt::unless_interrupted;
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
    /// After a failure go on with the next section
    #[arg(long)]
    keep_going: bool,
    /// Show what the blocks print
    #[arg(long, short)]
    verbose: bool,
    /// Another page than docs/course.md
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// A line for people. A reader that has seen enough (`| head`) must not end the course before it has cleaned up.
macro_rules! say {
    ($($text:tt)*) => {
        let _ = writeln!(std::io::stdout(), $($text)*);
    };
}

/// Runs it. Exit code 0 means that every block that was run holds.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checkout = kodo_dev::course::find_checkout(&std::env::current_dir()?)?;
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| checkout.join(kodo_dev::course::COURSE));
    let page =
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let course = Course::parse(&page)?;
    let sections = course.select(&args.section)?;
    if args.list {
        list(&sections);
        return Ok(ExitCode::SUCCESS);
    }
    // Lines are told as `docs/course.md:57`, which editors and terminals can open.
    let name = file
        .strip_prefix(&checkout)
        .unwrap_or(&file)
        .display()
        .to_string();
    let stage = Stage::new(checkout.clone(), &args.server.database("postgres"))?;
    say!("course: {name} with {}", stage.describe());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(async {
        let options = Options {
            fast: args.fast,
            keep_going: args.keep_going,
        };
        let mut tell = |event: Event<'_>| tell(&name, args.verbose, &event);
        let outcome = unless_interrupted(async {
            Ok(kodo_dev::course::run(&sections, &stage, options, &mut tell).await?)
        })
        .await;
        if let Err(error) = stage.clean_up().await {
            eprintln!("course: its databases are still there: {error}");
        }
        outcome
    })?;
    summary(&name, &report);
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn list(sections: &[&Section]) {
    for section in sections {
        say!(
            "{:>5}  {} {}",
            section.line,
            "#".repeat(section.level),
            section.title
        );
        for block in &section.blocks {
            let how = match &block.kind {
                Kind::Illustration(reason) => format!("not run: {reason}"),
                Kind::Run(marks) if marks.slow => "slow".to_owned(),
                Kind::Run(_) => String::new(),
            };
            say!(
                "{:>5}      {}{}{how}",
                block.line,
                block.title(),
                if how.is_empty() { "" } else { "  # " }
            );
        }
    }
}

fn tell(name: &str, verbose: bool, event: &Event<'_>) {
    match event {
        Event::Section(section) if section.blocks.is_empty() => {}
        Event::Section(section) => {
            say!("\n{}", section.title);
        }
        Event::Begins(block) if verbose => {
            say!("  line {}", block.line);
            indented("$ ", &block.code);
        }
        Event::Begins(_) => {}
        Event::Over(report) => over(name, verbose, report),
    }
}

fn over(name: &str, verbose: bool, report: &BlockReport) {
    if verbose {
        indented("  ", &report.output);
    }
    let seconds = report.took.as_secs_f64();
    match &report.outcome {
        Outcome::Held => {
            say!(
                "  holds   {:>6}  {seconds:>6.1} s  {}",
                report.line,
                report.title
            );
        }
        Outcome::Skipped(skip) => {
            say!(
                "  not run {:>6}            {} ({skip})",
                report.line,
                report.title
            );
        }
        Outcome::Failed(failure) => {
            say!(
                "  FAILED  {:>6}  {seconds:>6.1} s  {}",
                report.line,
                report.title
            );
            say!("\n{name}:{}: {}", failure.line, failure.reason);
            indented("", &failure.detail);
            say!();
        }
    }
}

fn indented(mark: &str, text: &str) {
    for line in text.lines() {
        say!("    {mark}{line}");
    }
}

/// What was run and what was not, and why.
fn summary(name: &str, report: &Report) {
    let failed = report.failures().count();
    let skipped: Vec<_> = report.skipped().collect();
    say!(
        "\ncourse: {} blocks hold, {failed} failed, {} not run, in {:.0} s",
        report.held(),
        skipped.len(),
        report.took.as_secs_f64()
    );
    for (block, skip) in skipped {
        if !matches!(skip, Skip::After(_)) {
            say!("course: not run: {name}:{}: {skip}", block.line);
        }
    }
    for failure in report.failures() {
        say!(
            "course: FAILED: {name}:{}: {}",
            failure.line,
            failure.reason
        );
    }
}
