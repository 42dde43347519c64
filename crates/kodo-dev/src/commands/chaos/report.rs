//! What a soak has to say at its end.

use std::time::Duration;

use super::board::{Times, Told};
use super::evidence::Rows;
use super::schedule::Fault;
use super::verdict::Check;

/// Most offenders of one promise that are printed.
const SHOWN: usize = 10;

/// Most characters of an offender that are printed; the data is kept for the rest.
const WIDTH: usize = 300;

/// Prints what was asked for, what was broken, and how it went on.
pub(super) fn figures(told: &Told, rows: &Rows, length: Duration, quiet: Duration) {
    let line = |name: &str, text: String| println!("{name:<12}{text}");
    line(
        "load",
        format!(
            "{} requests in {:.0} s: {} without an answer, {} told to come again (503), {} answers replayed by key",
            told.requests,
            length.as_secs_f64(),
            told.unanswered,
            told.unavailable,
            told.replayed
        ),
    );
    line("faults", told.faults.values().sum::<u64>().to_string());
    for fault in Fault::ALL {
        let times = told.faults.get(&fault).copied().unwrap_or_default();
        line("", format!("{times:4}  {fault}"));
    }
    let again = |what: &str, times: &Times| {
        let slowest = times.slowest.as_secs_f64();
        format!("{} {what}, the slowest after {slowest:.1} s", times.count)
    };
    line("recoveries", again("services ready again", &told.restarts));
    line(
        "",
        again("databases taking connections again", &told.databases),
    );
    let attempts = rows.workflows.values().map(|row| row.recovery_attempts - 1);
    let attempts: Vec<i64> = attempts.filter(|again| *again > 0).collect();
    line(
        "",
        format!(
            "{} workflows went on after a crash, {} times in all, one of them {} times",
            attempts.len(),
            attempts.iter().sum::<i64>(),
            attempts.iter().max().copied().unwrap_or_default()
        ),
    );
    line(
        "",
        format!(
            "all quiet {:.1} s after the last fault",
            quiet.as_secs_f64()
        ),
    );
    line(
        "totals",
        format!(
            "{} intents, {} runs, {} crash demos, {} workflows",
            rows.intents.len(),
            rows.runs.len(),
            rows.marks.len(),
            rows.workflows.len()
        ),
    );
    if let Some(run) = rows.runs.iter().max_by_key(|row| row.took_ms) {
        let took = Duration::from_millis(run.took_ms.unsigned_abs()).as_secs_f64();
        line(
            "slowest run",
            format!("{took:.1} s from accepted to ended: {}", run.id),
        );
    }
}

/// Prints each promise with what breaks it. Returns whether all were kept.
pub(super) fn verdict(seed: u64, checks: &[Check]) -> bool {
    for check in checks {
        let word = if check.broken.is_empty() {
            "kept"
        } else {
            "BROKEN"
        };
        println!("{word:<8}{} ({} looked at)", check.promise, check.looked_at);
        for offender in check.broken.iter().take(SHOWN) {
            println!("        {}", kodo_dev::course::brief(offender, WIDTH));
        }
        if check.broken.len() > SHOWN {
            println!("        and {} more", check.broken.len() - SHOWN);
        }
    }
    let broken = checks.iter().filter(|check| !check.broken.is_empty());
    let broken = broken.count();
    match broken {
        0 => println!("chaos: every promise was kept (seed {seed})"),
        _ => println!(
            "chaos: {broken} of {} promises broken; again with: bin/mise run -f chaos --seed {seed}",
            checks.len()
        ),
    }
    broken == 0
}
