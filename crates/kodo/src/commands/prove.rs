//! `kodo prove`: every invariant, held against the rows of both databases.

mod look;
mod report;
mod suspects;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use kodo_store::{Invariant, Part};

use crate::cli::{Format, ProveArgs};
use crate::output;
use crate::settings::Settings;
use crate::trouble;
use look::Prover;
use suspects::Suspects;

/// Exit code if nothing could be checked, so that a script does not take that for an answer.
const UNPROVEN: u8 = 2;

/// How much longer than allowed a row may offend before it counts as a violation: the machine may be busy.
const MARGIN: Duration = Duration::from_secs(5);

/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What was found.
struct Proof {
    instance: String,
    /// Only so many runs were looked at, those that were made last.
    newest: Option<i64>,
    product: String,
    system: String,
    place: String,
    /// Executor ids of the workers that live.
    workers: Vec<String>,
    runs: BTreeMap<String, i64>,
    /// What to know of the engine's schema.
    warning: Option<String>,
    found: Vec<(Invariant, Suspects)>,
}

impl Proof {
    fn violated(&self) -> usize {
        let violated = self.found.iter().filter(|(_, rows)| !rows.holds());
        violated.count()
    }

    /// Runs that are not over.
    fn unfinished(&self) -> i64 {
        ["queued", "running", "waiting_input"]
            .iter()
            .filter_map(|status| self.runs.get(*status))
            .sum()
    }
}

/// Checks every invariant and prints the result. Exit code 0 if all hold, 1 if one is violated, 2 if that is not known.
pub(crate) async fn run(settings: &Settings, args: ProveArgs) -> ExitCode {
    let proof = match prove(settings, args.newest).await {
        Ok(proof) => proof,
        Err(error) => {
            let error = trouble::explained(settings, Part::Product, error).await;
            return unproven(&error);
        }
    };
    let text = if args.json || args.output.format == Format::Json {
        report::json(&proof)
    } else {
        report::text(&proof)
    };
    if let Err(error) = output::print(&text) {
        return unproven(&error);
    }
    match proof.violated() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Says why nothing is proven.
pub(crate) fn unproven(error: &anyhow::Error) -> ExitCode {
    output::tell(format_args!("kodo: nothing is proven: {error:#}"));
    ExitCode::from(UNPROVEN)
}

async fn prove(settings: &Settings, newest: Option<i64>) -> anyhow::Result<Proof> {
    let mut prover = Prover::connect(settings, newest).await?;
    let mut proof = prover.first(newest).await?;
    loop {
        let dead = proof.workers.is_empty();
        for (_, rows) in &mut proof.found {
            rows.judge(dead, MARGIN);
        }
        if proof.found.iter().all(|(_, rows)| rows.judged()) {
            break;
        }
        // Not for something to happen, but for it to have had the time that it is allowed.
        tokio::time::sleep(LOOK_AGAIN).await;
        prover.again(&mut proof).await?;
    }
    prover.close().await?;
    Ok(proof)
}
