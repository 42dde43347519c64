//! What came of a run.

use std::fmt;
use std::time::Duration;

use super::Block;

/// How much of what a block printed is shown with its failure.
const SHOWN_LINES: usize = 40;

/// A run of a course, or of a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The blocks in order.
    pub blocks: Vec<BlockReport>,
    /// How long it took.
    pub took: Duration,
}

/// One block of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReport {
    /// Line of the first command.
    pub line: usize,
    /// The first command.
    pub title: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What it printed.
    pub output: String,
    /// The line of it that says most.
    pub evidence: Option<String>,
}

/// How a block ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As the page says.
    Held,
    /// Otherwise.
    Failed(Failure),
    /// It was not run.
    Skipped(Skip),
}

/// A block that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The line of the page to look at.
    pub line: usize,
    /// What is wrong, in a sentence.
    pub reason: String,
    /// The difference, or what was printed last.
    pub detail: String,
}

/// Why a block was not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The page says so, for this reason.
    Illustration(String),
    /// It takes minutes, and speed was asked for.
    Slow,
    /// The same commands have already held, on this line.
    Held(usize),
    /// What comes before it in its section, or in the course, did not hold, on this line.
    After(usize),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Illustration(reason) => f.write_str(reason),
            Self::Slow => f.write_str("slow, and --fast leaves it out"),
            Self::Held(line) => write!(f, "the same as line {line}, which has held in this run"),
            Self::After(line) => write!(f, "line {line} failed before it"),
        }
    }
}

impl Report {
    /// How many blocks were run and held.
    pub fn held(&self) -> usize {
        let blocks = self.blocks.iter();
        blocks.filter(|it| it.outcome == Outcome::Held).count()
    }

    /// What did not hold.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.blocks.iter().filter_map(|block| match &block.outcome {
            Outcome::Failed(failure) => Some(failure),
            _ => None,
        })
    }

    /// What was not run, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (&BlockReport, &Skip)> {
        self.blocks.iter().filter_map(|block| match &block.outcome {
            Outcome::Skipped(skip) => Some((block, skip)),
            _ => None,
        })
    }

    /// Whether something was run and all of that held.
    pub fn holds(&self) -> bool {
        self.held() > 0 && self.failures().next().is_none()
    }
}

impl BlockReport {
    /// That of a block that holds so far.
    pub(super) fn new(block: &Block) -> Self {
        Self {
            line: block.line,
            title: block.title(),
            outcome: Outcome::Held,
            took: Duration::ZERO,
            output: String::new(),
            evidence: None,
        }
    }

    /// Picks the line to quote: the last one with this text in it, else the last one that is not empty.
    pub(super) fn find_evidence(&mut self, text: Option<&str>) {
        let mut lines = self.output.lines().rev().map(without_prefix);
        let wanted = |line: &&str| text.map_or(!line.trim().is_empty(), |it| line.contains(it));
        self.evidence = lines.find(wanted).map(|line| brief(line.trim(), 120));
    }
}

/// A line of a task without the task's name, which mise puts before it.
fn without_prefix(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(name, _)| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || b":-_".contains(&byte))
        })
        .map_or(line, |(_, rest)| without_prefix(rest))
}

/// A text of at most this many characters.
pub fn brief(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let cut: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// The last lines of an output.
pub(super) fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    let before = lines.len().saturating_sub(SHOWN_LINES);
    let shown = lines[before..].join("\n");
    if before > 0 {
        format!("… {before} lines before these\n{shown}")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn evidence_is_the_last_line_with_the_text_without_the_task_s_name() {
        let output = "[wf:crashdemo] it works: 1\n[wf:crashdemo] it works: 2\n[db:up] Finished\n\n";
        let find = |text| {
            let block = Block {
                line: 1,
                code: String::new(),
                kind: Kind::Illustration(String::new()),
                expected: None,
            };
            let mut report = BlockReport::new(&block);
            report.output = output.to_owned();
            report.find_evidence(text);
            report.evidence
        };
        assert_eq!(find(Some("it works")).as_deref(), Some("it works: 2"));
        assert_eq!(find(None).as_deref(), Some("Finished"));
        assert_eq!(find(Some("nowhere")), None);
        assert_eq!(without_prefix("[1, 2] x"), "[1, 2] x");
    }

    #[test]
    fn a_run_of_nothing_does_not_hold() {
        assert!(!Report::default().holds());
    }
}
