//! What a soak says at its end.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A round that ran to its end.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: usize,
    pub(super) seed: u64,
    pub(super) took: Duration,
    /// Why it failed, if it did.
    pub(super) failure: Option<String>,
    pub(super) log: PathBuf,
}

/// All rounds so far.
#[derive(Debug)]
pub(super) struct Summary {
    name: &'static str,
    task: &'static str,
    asked: usize,
    rounds: Vec<Round>,
    interrupted: bool,
}

impl Summary {
    pub(super) fn new(name: &'static str, task: &'static str, asked: usize) -> Self {
        Self {
            name,
            task,
            asked,
            rounds: Vec::new(),
            interrupted: false,
        }
    }

    pub(super) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    pub(super) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    fn failed(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(|round| round.failure.is_some())
    }

    /// 1 where a round failed; 130, as a shell says of Ctrl-C, where it was cut short before that.
    pub(super) fn exit_code(&self) -> ExitCode {
        if self.failed().next().is_some() {
            ExitCode::FAILURE
        } else if self.interrupted {
            ExitCode::from(130)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// The middle one; of an even number the later of the two, so that it is a round that was.
    fn median(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.rounds.iter().map(|round| round.took).collect();
        times.sort();
        times.get(times.len() / 2).copied()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        let failed = self.failed().count();
        writeln!(
            f,
            "soak {name}: {} of {} rounds run{}: {} passed, {failed} failed",
            self.rounds.len(),
            self.asked,
            if self.interrupted {
                ", then interrupted"
            } else {
                ""
            },
            self.rounds.len() - failed,
        )?;
        let slowest = self.rounds.iter().max_by_key(|round| round.took);
        if let (Some(slowest), Some(median)) = (slowest, self.median()) {
            writeln!(
                f,
                "soak {name}: slowest {:.1} s (round {}, seed {}), median {:.1} s, in all {:.1} s",
                slowest.took.as_secs_f64(),
                slowest.number,
                slowest.seed,
                median.as_secs_f64(),
                self.rounds
                    .iter()
                    .map(|round| round.took)
                    .sum::<Duration>()
                    .as_secs_f64(),
            )?;
        }
        for round in self.failed() {
            writeln!(
                f,
                "soak {name}: round {} failed, seed {}: {}\n  log: {}\n  again: bin/mise run -f {} 1 --seed {}",
                round.number,
                round.seed,
                round.failure.as_deref().unwrap_or_default(),
                round.log.display(),
                self.task,
                round.seed,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(rounds: &[(u64, Option<&str>)]) -> Summary {
        let mut summary = Summary::new("unit", "test:unit:soak", 5);
        for (index, (millis, failure)) in rounds.iter().enumerate() {
            summary.add(Round {
                number: index + 1,
                seed: 40 + index as u64,
                took: Duration::from_millis(*millis),
                failure: failure.map(str::to_owned),
                log: PathBuf::from(format!("round-{:03}.log", index + 1)),
            });
        }
        summary
    }

    #[test]
    fn it_counts_and_names_the_slowest_and_the_median() {
        let summary = summary(&[
            (100, None),
            (900, None),
            (200, None),
            (300, None),
            (160, None),
        ]);
        assert_eq!(
            summary.to_string(),
            "soak unit: 5 of 5 rounds run: 5 passed, 0 failed\n\
             soak unit: slowest 0.9 s (round 2, seed 41), median 0.2 s, in all 1.7 s\n"
        );
        assert_eq!(summary.exit_code(), ExitCode::SUCCESS);
    }

    #[test]
    fn a_failure_is_named_with_what_is_needed_to_repeat_it() {
        let mut summary = summary(&[(100, None), (200, Some("exit status: 101"))]);
        summary.interrupt();
        assert_eq!(
            summary.to_string(),
            "soak unit: 2 of 5 rounds run, then interrupted: 1 passed, 1 failed\n\
             soak unit: slowest 0.2 s (round 2, seed 41), median 0.2 s, in all 0.3 s\n\
             soak unit: round 2 failed, seed 41: exit status: 101\n  log: round-002.log\n  \
             again: bin/mise run -f test:unit:soak 1 --seed 41\n"
        );
        assert_eq!(summary.exit_code(), ExitCode::FAILURE);
    }

    #[test]
    fn one_that_was_cut_short_is_no_success() {
        let mut summary = summary(&[]);
        summary.interrupt();
        assert_eq!(
            summary.to_string(),
            "soak unit: 0 of 5 rounds run, then interrupted: 0 passed, 0 failed\n"
        );
        assert_eq!(summary.exit_code(), ExitCode::from(130));
    }
}
