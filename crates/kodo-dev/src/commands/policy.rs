//! The rules of this repository that no compiler knows, each checked by what it means and not by how it is spelled.
//!
//! A part looks at everything and says all that it finds. Each has tests that show it bad input: a check that has never
//! been seen to fail proves nothing.

mod ddl;
mod layers;
mod manifests;
mod shell;
mod size;
mod tasks;
mod uses;

use std::fmt;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::repository::Repository;

/// Which rules.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Parts to check; all of them where none is named
    parts: Vec<Part>,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Migrations and seeds never touch schema dbos
    Ddl,
    /// Every mise task is described, and cached only where that is safe
    Tasks,
    /// Every crate depends on and names only what its layer may
    Layers,
    /// Every dependency is the workspace's and has its reason
    Manifests,
    /// No source file is longer than a person reads
    Size,
    /// Every shell script parses
    Shell,
}

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    place: String,
    text: String,
}

impl Finding {
    fn new(place: impl fmt::Display, text: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// What a part says: how much it looked at, and what is wrong with it.
#[derive(Debug)]
struct Verdict {
    /// For a reader who wants to know whether it looked at anything at all.
    looked_at: String,
    findings: Vec<Finding>,
}

impl Part {
    fn check(self, repository: &Repository) -> anyhow::Result<Verdict> {
        match self {
            Self::Ddl => ddl::check(repository),
            Self::Tasks => tasks::check(repository),
            Self::Layers => layers::check(repository),
            Self::Manifests => manifests::check(repository),
            Self::Size => size::check(repository),
            Self::Shell => shell::check(repository),
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// Checks the parts that are asked for, all of them also after one has failed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let repository = Repository::find()?;
    let parts = if arguments.parts.is_empty() {
        Part::value_variants()
    } else {
        &arguments.parts
    };
    let mut code = ExitCode::SUCCESS;
    for part in parts {
        let name = part.name();
        let start = Instant::now();
        match part.check(&repository) {
            Ok(verdict) if verdict.findings.is_empty() => {
                println!(
                    "policy:{name}: ok, {} ({} ms)",
                    verdict.looked_at,
                    start.elapsed().as_millis()
                );
            }
            Ok(verdict) => {
                for finding in &verdict.findings {
                    eprintln!("policy:{name}: {finding}");
                }
                eprintln!("policy:{name}: {} broken", verdict.findings.len());
                code = ExitCode::FAILURE;
            }
            // A check that could not look has not passed.
            Err(error) => {
                eprintln!("policy:{name}: cannot be checked: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
