//! Rounds of unit and property tests, built once, each round with another seed.
//!
//! Of what `test:unit` runs, the tests within the crates and those in [`PROPERTIES`]: they start no program and wait for
//! none, so that fifty rounds say something about the code and not about the machine.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use cargo_metadata::Message;
use tokio::process::Command;

use super::{Attempt, Ended, Soak, Stop, into_log};
use crate::repository::Repository;

/// The programs in folders `tests` that are kept: package, target. The others start servers, jails, or the product.
const PROPERTIES: [(&str, &str); 3] = [
    ("kodo-contract", "agreement"),
    ("kodo-contract", "ajv_oracle"),
    ("kodo-course", "page"),
];

/// A built test binary.
struct Binary {
    name: String,
    program: PathBuf,
    /// Where its package is: tests run there, as with cargo.
    folder: PathBuf,
}

pub(super) struct Unit {
    binaries: Vec<Binary>,
}

impl Unit {
    /// Builds all test binaries. `None` where it was interrupted.
    pub(super) async fn build(
        repository: &Repository,
        stop: &mut Stop,
    ) -> anyhow::Result<Option<Self>> {
        let folder = repository.root().join(".data/soak");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let messages = folder.join("unit-build.json");
        let mut cargo = Command::new(repository.root().join("scripts/cargo"));
        cargo
            .args([
                "test",
                "--workspace",
                "--locked",
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            .current_dir(repository.root())
            .stdout(Stdio::from(std::fs::File::create(&messages)?));
        let Some(status) = stop.or_end_of(&mut cargo).await? else {
            return Ok(None);
        };
        ensure!(status.success(), "the tests do not build");
        let (binaries, left_out) = binaries(&std::fs::read(&messages)?)?;
        ensure!(!binaries.is_empty(), "cargo built no tests");
        let names: Vec<&str> = binaries.iter().map(|binary| binary.name.as_str()).collect();
        println!(
            "soak unit: {} test binaries: {}",
            names.len(),
            names.join(", ")
        );
        println!(
            "soak unit: left out, because they start programs: {}",
            left_out.join(", ")
        );
        Ok(Some(Self { binaries }))
    }
}

/// The test binaries among cargo's messages, and the names of those that are left out.
fn binaries(messages: &[u8]) -> anyhow::Result<(Vec<Binary>, Vec<String>)> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for message in Message::parse_stream(messages) {
        let Message::CompilerArtifact(artifact) = message? else {
            continue;
        };
        let Some(program) = artifact.executable.filter(|_| artifact.profile.test) else {
            continue;
        };
        let folder = artifact
            .manifest_path
            .parent()
            .context("a manifest in no folder")?;
        let package = folder.file_name().unwrap_or_default();
        let target = artifact.target.name.as_str();
        let is_test = artifact.target.is_test();
        if artifact.target.is_bench() {
            continue;
        }
        if is_test && !PROPERTIES.contains(&(package, target)) {
            left_out.push(format!("{package}/tests/{target}"));
            continue;
        }
        found.push(Binary {
            name: if is_test {
                format!("{package}/tests/{target}")
            } else {
                package.to_owned()
            },
            program: program.into(),
            folder: folder.into(),
        });
    }
    Ok((found, left_out))
}

impl Soak for Unit {
    const NAME: &'static str = "unit";
    const TASK: &'static str = "test:unit:soak";

    async fn round(&self, attempt: &mut Attempt<'_>) -> anyhow::Result<Ended> {
        let mut failed = Vec::new();
        for binary in &self.binaries {
            let mut command = Command::new(&binary.program);
            command
                .current_dir(&binary.folder)
                .env("CARGO_MANIFEST_DIR", &binary.folder)
                .env("TEST_SEED", attempt.seed.to_string())
                .env("PROPTEST_RNG_SEED", attempt.seed.to_string())
                // The seed is how a failure is repeated; no file is to appear among the sources.
                .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
            into_log(&mut command, &attempt.log)?;
            let Some(status) = attempt.stop.or_end_of(&mut command).await? else {
                return Ok(Ended::Stopped);
            };
            if !status.success() {
                failed.push(format!("{} ({status})", binary.name));
            }
        }
        let tests = Count::of(&std::fs::read_to_string(&attempt.log)?);
        if !failed.is_empty() {
            return Ok(Ended::Failed(format!(
                "{}: {}",
                tests.words(),
                failed.join(", ")
            )));
        }
        if tests.passed == 0 {
            return Ok(Ended::Failed("no test ran".into()));
        }
        Ok(Ended::Passed(tests.words()))
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
