//! What a soak has to say at its end.

use std::time::Duration;

use super::board::Told;
use super::evidence::Rows;
use super::schedule::Fault;
use super::verdict::Check;

/// Most offenders of one promise that are printed.
const SHOWN: usize = 10;

/// Most characters of an offender that are printed; the data is kept for the rest.
const WIDTH: usize = 300;

/// Prints what was asked for, what was broken, and how it went on.
pub(super) fn figures(told: &Told, rows: &Rows, length: Duration, quiet: Duration) {
    let Told {
        requests,
        unanswered,
        unavailable,
        replayed,
        ..
    } = told;
    println!(
        "load        {requests} requests in {:.0} s: {unanswered} without an answer, {unavailable} told to come again \
         (503), {replayed} answers replayed by key",
        length.as_secs_f64()
    );
    println!("faults      {}", told.faults.values().sum::<u64>());
    for fault in Fault::ALL {
        let times = told.faults.get(&fault).copied().unwrap_or_default();
        println!("            {times:4}  {fault}");
    }
    println!("recoveries  {} services ready again", told.restarts);
    let attempts = rows.workflows.values().map(|row| row.recovery_attempts - 1);
    let attempts: Vec<i64> = attempts.filter(|again| *again > 0).collect();
    println!(
        "            {} workflows went on after a crash, {} times in all, one of them {} times",
        attempts.len(),
        attempts.iter().sum::<i64>(),
        attempts.iter().max().copied().unwrap_or_default()
    );
    println!(
        "            all quiet {:.1} s after the last fault",
        quiet.as_secs_f64()
    );
    println!(
        "totals      {} intents, {} runs, {} crash demos, {} workflows",
        rows.intents.len(),
        rows.runs.len(),
        told.demos.len(),
        rows.workflows.len()
    );
    if let Some(run) = rows.runs.iter().max_by_key(|row| row.took_ms) {
        let took = Duration::from_millis(run.took_ms.unsigned_abs()).as_secs_f64();
        println!("slowest run {took:.1} s from accepted to ended: {}", run.id);
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
