//! What a check found.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, or will by itself, but somebody should know.
    Warn,
    /// Something does not work until somebody does something.
    Problem,
    /// Could not be looked at, for the reason given.
    Skipped,
}

impl Level {
    /// As it is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Problem => "problem",
            Self::Skipped => "skipped",
        }
    }
}

/// One line, and the command to go on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Which check; stable, for programs.
    pub(crate) check: &'static str,
    /// How bad it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) what: String,
    /// What to run next, to be copied into a shell.
    pub(crate) next: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, what, None)
    }

    pub(crate) fn warn(
        check: &'static str,
        what: impl Into<String>,
        next: impl Into<Option<String>>,
    ) -> Self {
        Self::new(check, Level::Warn, what, next.into())
    }

    pub(crate) fn problem(check: &'static str, what: impl Into<String>, next: String) -> Self {
        Self::new(check, Level::Problem, what, Some(next))
    }

    pub(crate) fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Level::Skipped, why, None)
    }

    /// Several checks that could not be made, for one reason.
    pub(crate) fn all_skipped(checks: &[&'static str], why: &str) -> Vec<Self> {
        checks
            .iter()
            .map(|check| Self::skipped(check, why))
            .collect()
    }

    /// The same with a command to go on with.
    pub(crate) fn then(self, next: String) -> Self {
        Self {
            next: Some(next),
            ..self
        }
    }

    fn new(
        check: &'static str,
        level: Level,
        what: impl Into<String>,
        next: Option<String>,
    ) -> Self {
        Self {
            check,
            level,
            // One line, whatever a server or a file had to say.
            what: what.into().split_whitespace().collect::<Vec<_>>().join(" "),
            next,
        }
    }
}

/// Every finding.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// No finding is a problem.
    pub(crate) healthy: bool,
    /// In the order of the checks.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(findings: Vec<Finding>) -> Self {
        Self {
            healthy: !findings
                .iter()
                .any(|finding| finding.level == Level::Problem),
            findings,
        }
    }

    /// One line.
    pub(crate) fn summary(&self) -> String {
        let count = |level| {
            self.findings
                .iter()
                .filter(|finding| finding.level == level)
                .count()
        };
        format!(
            "doctor: problems {}, warnings {}, ok {}, skipped {}",
            count(Level::Problem),
            count(Level::Warn),
            count(Level::Ok),
            count(Level::Skipped)
        )
    }
}
