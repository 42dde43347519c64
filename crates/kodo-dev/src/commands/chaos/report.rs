//! What a soak has to say at its end.

use std::fmt;
use std::time::Duration;

use super::board::{Board, Times, read};
use super::evidence::Rows;
use super::schedule::Fault;
use super::verdict::Check;

/// Most offenders of one promise that are printed.
const SHOWN: usize = 10;

/// Most characters of an offender that are printed; the data is kept for the rest.
const WIDTH: usize = 300;

/// The figures and the verdict.
pub(crate) struct Report {
    seed: u64,
    lines: Vec<(String, String)>,
    checks: Vec<Check>,
}

impl Report {
    pub(crate) fn new(
        seed: u64,
        length: Duration,
        quiet: Duration,
        board: &Board,
        rows: &Rows,
        checks: Vec<Check>,
    ) -> Self {
        let counts = &board.counts;
        let told = board.told();
        let recovered: Vec<i64> = rows
            .workflows
            .values()
            .map(|row| row.recovery_attempts - 1)
            .filter(|again| *again > 0)
            .collect();
        let slowest = rows.runs.iter().max_by_key(|row| row.took_ms);
        let mut lines = vec![
            (
                "load".to_owned(),
                format!(
                    "{} requests in {:.0} s: {} without an answer, {} told to come again (503), {} answers replayed by key",
                    read(&counts.requests),
                    length.as_secs_f64(),
                    read(&counts.unanswered),
                    read(&counts.unavailable),
                    read(&counts.replayed)
                ),
            ),
            (
                "faults".to_owned(),
                format!("{}", told.faults.values().sum::<u64>()),
            ),
        ];
        for fault in Fault::ALL {
            let times = told.faults.get(&fault).copied().unwrap_or_default();
            lines.push((String::new(), format!("{times:4}  {fault}")));
        }
        lines.extend([
            (
                "recoveries".to_owned(),
                times("services ready again", &told.restarts),
            ),
            (
                String::new(),
                times("databases taking connections again", &told.databases),
            ),
            (
                String::new(),
                format!(
                    "{} workflows went on after a crash, {} times in all, one of them {} times",
                    recovered.len(),
                    recovered.iter().sum::<i64>(),
                    recovered.iter().max().copied().unwrap_or_default()
                ),
            ),
            (
                String::new(),
                format!(
                    "all quiet {:.1} s after the last fault",
                    quiet.as_secs_f64()
                ),
            ),
            (
                "totals".to_owned(),
                format!(
                    "{} intents, {} runs, {} crash demos, {} workflows",
                    rows.intents.len(),
                    rows.runs.len(),
                    rows.marks.len(),
                    rows.workflows.len()
                ),
            ),
        ]);
        if let Some(run) = slowest {
            let took = Duration::from_millis(run.took_ms.unsigned_abs());
            lines.push((
                "slowest run".to_owned(),
                format!(
                    "{:.1} s from accepted to ended: {}",
                    took.as_secs_f64(),
                    run.id
                ),
            ));
        }
        Self {
            seed,
            lines,
            checks,
        }
    }

    /// Whether every promise was kept.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.broken.is_empty())
    }
}

fn times(what: &str, times: &Times) -> String {
    format!(
        "{} {what}, the slowest after {:.1} s",
        times.count,
        times.slowest.as_secs_f64()
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, text) in &self.lines {
            writeln!(f, "{name:<12}{text}")?;
        }
        for check in &self.checks {
            let word = if check.broken.is_empty() {
                "kept"
            } else {
                "BROKEN"
            };
            writeln!(
                f,
                "{word:<8}{} ({} looked at)",
                check.promise, check.looked_at
            )?;
            for offender in check.broken.iter().take(SHOWN) {
                let end = offender.char_indices().nth(WIDTH);
                let shown = end.map_or(offender.as_str(), |(at, _)| &offender[..at]);
                writeln!(f, "        {shown}{}", if end.is_some() { "…" } else { "" })?;
            }
            if check.broken.len() > SHOWN {
                writeln!(f, "        and {} more", check.broken.len() - SHOWN)?;
            }
        }
        let broken = self
            .checks
            .iter()
            .filter(|check| !check.broken.is_empty())
            .count();
        if broken == 0 {
            writeln!(f, "chaos: every promise was kept (seed {})", self.seed)
        } else {
            writeln!(
                f,
                "chaos: {broken} of {} promises broken; again with: bin/mise run -f chaos --seed {}",
                self.checks.len(),
                self.seed
            )
        }
    }
}
