//! Rounds of unit and property tests, built once, each round with another seed.
//!
//! Of what `test:unit` runs, the tests within the crates and those in [`PROPERTIES`]: they start no program and wait for
//! none, so that fifty rounds say something about the code and not about the machine.

use std::path::Path;

use anyhow::ensure;
use tokio::process::Command;

use super::{Attempt, Ended, Soak, Stop, into_log};

/// The programs in folders `tests` that are kept. The others start servers, jails, or the product.
const PROPERTIES: [&str; 2] = ["agreement", "ajv_oracle"];

pub(super) struct Unit;

impl Unit {
    /// Builds the tests. `None` where it was interrupted.
    pub(super) async fn build(root: &Path, stop: &mut Stop) -> anyhow::Result<Option<Self>> {
        let Some(status) = stop.or_end_of(tests(root).arg("--no-run")).await? else {
            return Ok(None);
        };
        ensure!(status.success(), "the tests do not build");
        println!("soak unit: the tests within the crates, and {PROPERTIES:?}");
        Ok(Some(Self))
    }
}

fn tests(root: &Path) -> Command {
    let mut cargo = Command::new(root.join("scripts/cargo"));
    cargo.current_dir(root);
    cargo.args([
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
        "--lib",
        "--bins",
    ]);
    cargo.args(PROPERTIES.iter().flat_map(|name| ["--test", name]));
    cargo
}

impl Soak for Unit {
    const NAME: &'static str = "unit";
    const TASK: &'static str = "test:unit:soak";

    async fn round(&self, attempt: &mut Attempt<'_>) -> anyhow::Result<Ended> {
        let mut command = tests(attempt.root);
        command
            .env("TEST_SEED", attempt.seed.to_string())
            .env("PROPTEST_RNG_SEED", attempt.seed.to_string())
            // The seed is how a failure is repeated; no file is to appear among the sources.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
        into_log(&mut command, &attempt.log)?;
        let Some(status) = attempt.stop.or_end_of(&mut command).await? else {
            return Ok(Ended::Stopped);
        };
        let tests = Count::of(&std::fs::read_to_string(&attempt.log)?);
        Ok(match status.success() {
            true if tests.passed == 0 => Ended::Failed("no test ran".into()),
            true => Ended::Passed(tests.words()),
            false => Ended::Failed(format!("{}: {status}", tests.words())),
        })
    }
}

/// What the test binaries say of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    /// Adds up `test result: ok. 12 passed; 0 failed; …`.
    fn of(log: &str) -> Self {
        let mut count = Self::default();
        for line in log
            .lines()
            .filter_map(|line| line.strip_prefix("test result: "))
        {
            let before = |word: &str| {
                let (number, _) = line.split_once(word)?;
                number.trim().rsplit(' ').next()?.parse::<usize>().ok()
            };
            count.passed += before(" passed").unwrap_or_default();
            count.failed += before(" failed").unwrap_or_default();
        }
        count
    }

    fn words(&self) -> String {
        format!("{} tests passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_binaries_are_added_up() {
        let log = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\n\n\
                   test result: FAILED. 10 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(
            Count::of(log),
            Count {
                passed: 12,
                failed: 3
            }
        );
        assert_eq!(Count::of("test result: ok. nonsense"), Count::default());
    }
}
