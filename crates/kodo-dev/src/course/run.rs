//! Running sections of a course: blocks in the one bash that they share, terminals beside it in shells of their own.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::compare::compare;
use super::process::Leader;
use super::report::tail;
use super::{Block, BlockReport, Failure, Kind, Marks, Outcome, Report, Section, Skip, Stage};

/// What the shared shell itself runs; the blocks are read from files that it is told of.
const DRIVER: &str = include_str!("driver.bash");

/// Pause between two looks whether a terminal's command has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What happens, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A section begins.
    Section(&'a Section),
    /// A block begins.
    Begins(&'a Block),
    /// A block is over, or was not run. A terminal's block may come a second time, as failed.
    Over(&'a BlockReport),
}

/// Runs these sections, in this order, in one shell; if `fast`, without the blocks that are marked `slow`. After a block that
/// does not hold, none is run.
///
/// # Errors
/// If the run itself cannot go on: no bash, no temporary folder. A block that does not hold is part of the report.
pub async fn run(
    sections: &[&Section],
    stage: &Stage,
    fast: bool,
    observe: &mut dyn FnMut(Event<'_>),
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("kodo-course-").tempdir()?;
    let shell = Shell::start(stage, folder.path())?;
    let mut runner = Runner {
        stage,
        fast,
        observe,
        shell,
        terminals: Vec::new(),
        held: HashMap::new(),
        report: Report::default(),
        folder,
    };
    let mut broken = None;
    for section in sections {
        (runner.observe)(Event::Section(section));
        for block in &section.blocks {
            let failed = runner.block(block, broken).await?;
            broken = broken.or(failed);
        }
    }
    let mut report = runner.end().await?;
    report.took = began.elapsed();
    Ok(report)
}

struct Runner<'a> {
    stage: &'a Stage,
    fast: bool,
    observe: &'a mut dyn FnMut(Event<'_>),
    shell: Shell,
    terminals: Vec<Terminal<'a>>,
    /// Commands that have held, and where.
    held: HashMap<&'a str, usize>,
    report: Report,
    // Last: it is removed when nothing uses it any more.
    folder: TempDir,
}

/// A bash with the blocks' variables and functions in it.
struct Shell {
    leader: Leader,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// A command that stays, such as a service, with its place in the report.
struct Terminal<'a> {
    leader: Leader,
    script: Script,
    name: &'a str,
    block: &'a Block,
    report: usize,
}

/// A block's commands as a file, so that the shell counts lines as the page does, and its output as another one: a file
/// neither fills up, as a pipe does, nor is it held open by what a block leaves behind.
struct Script {
    commands: PathBuf,
    output: PathBuf,
}

impl<'a> Runner<'a> {
    /// Runs a block or leaves it out, and notes its outcome. `broken` is the line of a failure before it. Returns
    /// the line of its own.
    async fn block(
        &mut self,
        block: &'a Block,
        broken: Option<usize>,
    ) -> io::Result<Option<usize>> {
        let mut report = BlockReport::new(block);
        let mut failed = None;
        if let Some(skip) = self.skip(block, broken) {
            report.outcome = Outcome::Skipped(skip);
        } else if let Kind::Run(marks) = &block.kind {
            (self.observe)(Event::Begins(block));
            let began = Instant::now();
            let script = self.script(&block.code)?;
            let mut failure = None;
            if let Some(name) = &marks.terminal {
                self.open(name, block, script)?;
            } else {
                failure = self.foreground(block, marks, &script).await?;
                report.output = script.printed()?;
            }
            report.took = began.elapsed();
            report.find_evidence(marks.evidence.as_deref());
            if let Some(failure) = failure {
                failed = Some(failure.line);
                report.outcome = Outcome::Failed(failure);
            } else {
                self.held.insert(&block.code, block.line);
            }
        }
        (self.observe)(Event::Over(&report));
        self.report.blocks.push(report);
        Ok(failed)
    }

    fn skip(&self, block: &Block, broken: Option<usize>) -> Option<Skip> {
        let marks = match &block.kind {
            Kind::Illustration(reason) => return Some(Skip::Illustration(reason.clone())),
            Kind::Run(marks) => marks,
        };
        let held = self.held.get(block.code.as_str());
        match (broken, held) {
            (Some(line), _) => Some(Skip::After(line)),
            (None, Some(line)) if marks.once => Some(Skip::Held(*line)),
            _ => (marks.slow && self.fast).then_some(Skip::Slow),
        }
    }

    fn script(&self, code: &str) -> io::Result<Script> {
        let name = format!("block-{}", self.report.blocks.len());
        let script = Script {
            commands: self.folder.path().join(&name),
            output: self.folder.path().join(format!("{name}.output")),
        };
        std::fs::write(&script.commands, code)?;
        File::create(&script.output)?;
        Ok(script)
    }

    /// Starts a terminal's command. Whether it is ready, the next block finds out.
    fn open(&mut self, name: &'a str, block: &'a Block, script: Script) -> io::Result<()> {
        let output = File::options().append(true).open(&script.output)?;
        let mut bash = self.stage.bash();
        bash.arg(&script.commands)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output);
        self.terminals.push(Terminal {
            leader: Leader::spawn(&mut bash)?,
            script,
            name,
            block,
            report: self.report.blocks.len(),
        });
        Ok(())
    }

    /// Runs a block in the shared shell; what is wrong with that.
    async fn foreground(
        &mut self,
        block: &Block,
        marks: &Marks,
        script: &Script,
    ) -> io::Result<Option<Failure>> {
        let ran = tokio::select! {
            ran = self.shell.run(script, marks.timeout) => ran?,
            died = first_to_end(&mut self.terminals) => return died.map(Some),
        };
        let printed = script.printed()?;
        let (line, reason) = match ran {
            Ok((code, _)) if code == marks.exit => return Ok(differs(block, &printed)),
            // Where it should have failed and did not, no line is to blame.
            Ok((code, line)) => (
                block.line + line.saturating_sub(1),
                format!("ended with exit code {code}, not {}", marks.exit),
            ),
            Err(reason) => (block.line, reason),
        };
        Ok(Some(Failure {
            line,
            reason,
            detail: tail(&printed),
        }))
    }

    /// Ends the shell, then the terminals, the last one first; then it shows whether those printed what they should.
    async fn end(mut self) -> io::Result<Report> {
        self.shell.end().await?;
        while let Some(mut terminal) = self.terminals.pop() {
            let early = terminal.ended()?;
            terminal.leader.end().await?;
            let printed = terminal.script.printed()?;
            // Its report was made right after it was started.
            let report = &mut self.report.blocks[terminal.report];
            if let Some(failure) = early.or_else(|| differs(terminal.block, &printed)) {
                report.outcome = Outcome::Failed(failure);
                (self.observe)(Event::Over(report));
            }
            report.output = printed;
        }
        Ok(self.report)
    }
}

impl Shell {
    fn start(stage: &Stage, folder: &Path) -> io::Result<Self> {
        let driver = folder.join("driver.bash");
        std::fs::write(&driver, DRIVER)?;
        let mut bash = stage.bash();
        bash.arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut leader = Leader::spawn(&mut bash)?;
        let child = leader.child();
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the shell has no pipes"));
        };
        Ok(Self {
            leader,
            commands,
            answers: BufReader::new(answers).lines(),
        })
    }

    /// Runs a block to its end, or to the first command that failed. Returns the exit code and line of that one, counted
    /// from 1, 0 if unknown; or why there is none.
    async fn run(
        &mut self,
        script: &Script,
        limit: Duration,
    ) -> io::Result<Result<(u8, usize), String>> {
        let told = format!("{}\n", script.commands.display());
        // A shell that a block has ended cannot be told anything; reading its answer shows it.
        let _ = self.commands.write_all(told.as_bytes()).await;
        let Ok(answer) = tokio::time::timeout(limit, self.answers.next_line()).await else {
            let limit = limit.as_secs();
            return Ok(Err(format!(
                "did not end within {limit} s (timeout= sets the limit)"
            )));
        };
        let Some(answer) = answer? else {
            let status = self.leader.child().wait().await?;
            return Ok(Err(format!(
                "ended the shell that the blocks share ({status}): a block must not exit or exec"
            )));
        };
        let numbers = answer.split_once(' ');
        numbers
            .and_then(|(code, line)| Some(Ok((code.parse().ok()?, line.parse().ok()?))))
            .ok_or_else(|| io::Error::other(format!("the shell answered {answer:?}")))
    }

    /// Ends it, with everything that its blocks left running.
    async fn end(self) -> io::Result<()> {
        drop(self.commands);
        self.leader.end().await
    }
}

impl Script {
    /// What was printed so far, standard output and standard error as they came.
    fn printed(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.output)?).into_owned())
    }
}

impl Terminal<'_> {
    /// What is wrong if its command has ended.
    fn ended(&mut self) -> io::Result<Option<Failure>> {
        let Some(status) = self.leader.child().try_wait()? else {
            return Ok(None);
        };
        Ok(Some(Failure {
            line: self.block.line,
            reason: format!(
                "the command in terminal {} has ended ({status}), but should stay",
                self.name
            ),
            detail: tail(&self.script.printed()?),
        }))
    }
}

/// What is wrong with an output, where the page says what it should be.
fn differs(block: &Block, printed: &str) -> Option<Failure> {
    let (expected, line) = block.expected.as_ref()?;
    let (same, detail) = compare(expected, printed)?;
    Some(Failure {
        line: line + same,
        reason: "printed something else than the course shows".to_owned(),
        detail,
    })
}

/// Waits until a terminal's command has ended; for ever if there is none.
async fn first_to_end(terminals: &mut Vec<Terminal<'_>>) -> io::Result<Failure> {
    loop {
        for index in 0..terminals.len() {
            if let Some(failure) = terminals[index].ended()? {
                // Once is enough: blocks that need it fail by themselves.
                terminals.remove(index);
                return Ok(failure);
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
