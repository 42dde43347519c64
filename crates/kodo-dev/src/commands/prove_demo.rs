//! `kodo-dev prove-demo`: the completion bar of the operator's course, told to somebody who decides by it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use kodo_dev::course::{COURSE, Course, Report, Section, Stage, find_checkout};

use super::course::on_stage;
use crate::say;
use crate::server::Server;

/// On which server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    server: Server,
    /// Accepted as every setting is; the course finds free ports
    #[arg(long, hide = true)]
    port: Option<u16>,
    /// The same
    #[arg(long, hide = true)]
    admin_port: Option<u16>,
}

/// How the section's heading begins. Each heading below it is a claim, and the commands there its proof.
const SECTION: &str = "Completion bar";

/// Runs the commands that the course has there. Exit code 0 means that every claim holds, 1 that one does not or that
/// the run itself could not go on.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let proven = runtime.block_on(prove(&args.server));
    runtime.shutdown_background();
    // Under the name by which people call it.
    Ok(match proven {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kodo: {error:#}");
            ExitCode::FAILURE
        }
    })
}

async fn prove(server: &Server) -> anyhow::Result<bool> {
    let checkout = find_checkout(&std::env::current_dir()?)?;
    let course = Course::read(&checkout.join(COURSE))?;
    let mut claims = course.select(&[SECTION.to_owned()])?;
    claims.retain(|section| !section.blocks.is_empty());
    ensure!(
        !claims.is_empty(),
        "{COURSE} has no commands below {SECTION:?}"
    );
    on_stage(&checkout, server, async |stage| {
        tell(&claims, stage, &checkout).await
    })
    .await
}

/// Tries one claim after the other, also after one that does not hold.
async fn tell(claims: &[&Section], stage: &Stage, checkout: &Path) -> anyhow::Result<bool> {
    say::line(&say::bold("Sisu Kodo: does it hold what it promises?"));
    say::line(&format!(
        "{} claims, each tried with the commands that {COURSE} has for it. This takes many minutes.",
        claims.len()
    ));
    say::line(&say::dim(&format!(
        "checkout {}, {}",
        checkout.display(),
        stage.describe()
    )));
    let (mut broken, mut took) = (Vec::new(), Duration::ZERO);
    for (index, claim) in claims.iter().enumerate() {
        say::step(index + 1, &claim.title);
        let report = kodo_dev::course::run(&[claim], stage, false, &mut |_| {}).await?;
        took += report.took;
        result(claim, &report);
        if !report.holds() {
            broken.push(index + 1);
        }
    }
    verdict(claims.len(), &broken, took);
    Ok(broken.is_empty())
}

/// What came of one claim: how long it took, and the line that shows it.
fn result(claim: &Section, report: &Report) {
    let took = duration(report.took);
    if report.holds() {
        let evidence = report
            .blocks
            .iter()
            .rev()
            .find_map(|block| block.evidence.as_deref());
        say::line(&format!(
            "   {} in {took}: {}",
            say::good("holds"),
            evidence.unwrap_or("its commands ended well and printed nothing")
        ));
        return;
    }
    say::line(&format!("   {} after {took}", say::bad("does NOT hold")));
    for failure in report.failures() {
        say::line(&format!("   {COURSE}:{}: {}", failure.line, failure.reason));
        for line in failure.detail.lines() {
            say::line(&say::dim(&format!("     {line}")));
        }
    }
    say::line(&format!(
        "   to look into it: read {COURSE} from line {}",
        claim.line
    ));
}

fn verdict(claims: usize, broken: &[usize], took: Duration) {
    let took = duration(took);
    let text = match broken {
        [] => say::good(&format!(
            "all {claims} claims hold ({took}). It may be shown."
        )),
        [one] => say::bad(&format!(
            "claim {one} of {claims} does not hold ({took}). Do not show it yet."
        )),
        several => {
            let numbers: Vec<String> = several.iter().map(ToString::to_string).collect();
            say::bad(&format!(
                "claims {} of {claims} do not hold ({took}). Do not show it yet.",
                numbers.join(", ")
            ))
        }
    };
    say::line(&format!("\n{} {text}", say::bold("Verdict:")));
}

/// A duration as people say it.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round();
    if whole < 60.0 {
        return format!("{whole:.0} s");
    }
    format!("{:.0} min {:.0} s", (whole / 60.0).floor(), whole % 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (milliseconds, text) in [
            (840, "0.8 s"),
            (12_400, "12 s"),
            (59_600, "1 min 0 s"),
            (185_000, "3 min 5 s"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
