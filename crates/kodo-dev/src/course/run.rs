//! Running sections of a course.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use crate::course::compare::compare;
use crate::course::report::tail;
use crate::course::shell::{Ran, Shell};
use crate::course::terminal::{LOOK_AGAIN, Terminal};
use crate::course::{
    Block, BlockReport, CourseError, Failure, Kind, Marks, Outcome, Report, Section, Skip, Stage,
};

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave out what is marked `slow`.
    pub fast: bool,
    /// After a failure go on with the next section, instead of leaving everything else out.
    pub keep_going: bool,
}

/// What happens, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A section begins.
    Section(&'a Section),
    /// A block begins.
    Begins(&'a Block),
    /// A block is over, or was not run. A terminal's block may come a second time, as failed.
    Over(&'a Block, &'a BlockReport),
}

/// Runs these sections, in this order, in one shell.
///
/// # Errors
/// Where the run itself cannot go on: no bash, no temporary folder. A block that does not hold is part of the report.
pub async fn run(
    sections: &[&Section],
    stage: &Stage,
    options: Options,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Report, CourseError> {
    let began = Instant::now();
    let mut runner = Runner {
        stage,
        options,
        observe,
        shell: None,
        terminals: Vec::new(),
        held: HashMap::new(),
        report: Report::default(),
    };
    let mut broken = None;
    for section in sections {
        (runner.observe)(Event::Section(section));
        for block in &section.blocks {
            runner.block(section, block, &mut broken).await?;
        }
        if options.keep_going {
            broken = None;
        }
    }
    runner.end().await?;
    runner.report.took = began.elapsed();
    Ok(runner.report)
}

struct Runner<'a> {
    stage: &'a Stage,
    options: Options,
    observe: &'a mut dyn FnMut(Event<'_>),
    shell: Option<Shell>,
    terminals: Vec<Beside<'a>>,
    /// Commands that have held, and where.
    held: HashMap<&'a str, usize>,
    report: Report,
}

/// A terminal that runs, with its place in the report.
struct Beside<'a> {
    terminal: Terminal,
    name: &'a str,
    block: &'a Block,
    report: usize,
}

impl<'a> Runner<'a> {
    /// Runs a block or leaves it out, and notes what came of it. `broken` is the line of a failure before it.
    async fn block(
        &mut self,
        section: &Section,
        block: &'a Block,
        broken: &mut Option<usize>,
    ) -> Result<(), CourseError> {
        let mut report = BlockReport {
            section_line: section.line,
            line: block.line,
            title: block.title(),
            outcome: Outcome::Held,
            took: Duration::ZERO,
            output: String::new(),
            evidence: None,
        };
        match (&block.kind, self.skip(block, *broken)) {
            (_, Some(skip)) => report.outcome = Outcome::Skipped(skip),
            (Kind::Illustration(reason), None) => {
                report.outcome = Outcome::Skipped(Skip::Illustration(reason.clone()));
            }
            (Kind::Run(marks), None) => {
                (self.observe)(Event::Begins(block));
                let began = Instant::now();
                let (output, failure) = match &marks.terminal {
                    Some(name) => self.open(name, block).map(|()| (String::new(), None)),
                    None => self.foreground(block, marks).await,
                }
                .map_err(CourseError::io(format!(
                    "run the block on line {} in bash",
                    block.line
                )))?;
                report.took = began.elapsed();
                report.evidence = BlockReport::find_evidence(&output, marks.evidence.as_deref());
                report.output = output;
                match failure {
                    Some(failure) => {
                        *broken = Some(failure.line);
                        report.outcome = Outcome::Failed(failure);
                    }
                    None => {
                        self.held.insert(&block.code, block.line);
                    }
                }
            }
        }
        (self.observe)(Event::Over(block, &report));
        self.report.blocks.push(report);
        Ok(())
    }

    fn skip(&self, block: &Block, broken: Option<usize>) -> Option<Skip> {
        let Kind::Run(marks) = &block.kind else {
            return None;
        };
        if let Some(line) = broken {
            return Some(Skip::After(line));
        }
        if let Some(line) = self.held.get(block.code.as_str()).filter(|_| marks.once) {
            return Some(Skip::Held(*line));
        }
        (marks.slow && self.options.fast).then_some(Skip::Slow)
    }

    /// Starts a terminal's command, which stays. Whether it is ready, the next block finds out.
    fn open(&mut self, name: &'a str, block: &'a Block) -> io::Result<()> {
        let terminal = Terminal::start(self.stage.bash(), &block.code)?;
        self.terminals.push(Beside {
            terminal,
            name,
            block,
            report: self.report.blocks.len(),
        });
        Ok(())
    }

    /// Runs a block in the shell of the course: what it printed, and what is wrong with that.
    async fn foreground(
        &mut self,
        block: &Block,
        marks: &Marks,
    ) -> io::Result<(String, Option<Failure>)> {
        let mut shell = match self.shell.take() {
            Some(shell) => shell,
            None => Shell::start(self.stage.bash())?,
        };
        let file = shell.next_block();
        file.write(&block.code)?;
        let ran = tokio::select! {
            ran = shell.run(&file, marks.timeout) => Ok(ran?),
            died = first_to_end(&mut self.terminals) => Err(died?),
        };
        let output = file.read()?;
        let ran = match ran {
            Ok(ran) => ran,
            Err(failure) => {
                shell.end().await?;
                return Ok((output, Some(failure)));
            }
        };
        let failed = |line, reason, detail| {
            Some(Failure {
                line,
                reason,
                detail,
            })
        };
        let failure = match ran {
            Ran::Through { code, failed_line } if code != marks.exit => {
                // Where it should have failed and did not, no line is to blame.
                let line = block.line + failed_line.map_or(0, |line| line - 1);
                failed(
                    line,
                    format!("ended with exit code {code}, not {}", marks.exit),
                    tail(&output),
                )
            }
            Ran::Through { .. } => differs(block, &output),
            Ran::EndedShell(status) => failed(
                block.line,
                format!(
                    "ended the shell that the blocks share ({status}): a block must not exit or exec"
                ),
                tail(&output),
            ),
            Ran::TimedOut => failed(
                block.line,
                format!(
                    "did not end within {} s (timeout= sets the limit)",
                    marks.timeout.as_secs()
                ),
                tail(&output),
            ),
        };
        if matches!(ran, Ran::Through { .. }) {
            self.shell = Some(shell);
        } else {
            shell.end().await?;
        }
        Ok((output, failure))
    }

    /// Ends the shell, then the terminals, the last one first; then it shows whether those printed what they should.
    async fn end(&mut self) -> Result<(), CourseError> {
        if let Some(shell) = self.shell.take() {
            shell
                .end()
                .await
                .map_err(CourseError::io("end the shell"))?;
        }
        while let Some(mut beside) = self.terminals.pop() {
            let not_ended = CourseError::io("end a terminal");
            let early = beside
                .failure()
                .map_err(CourseError::io("look at a terminal"))?;
            let output = beside.terminal.end().await.map_err(not_ended)?;
            let Some(report) = self.report.blocks.get_mut(beside.report) else {
                continue;
            };
            if let Some(failure) = early.or_else(|| differs(beside.block, &output)) {
                report.outcome = Outcome::Failed(failure);
                (self.observe)(Event::Over(beside.block, report));
            }
            report.output = output;
        }
        Ok(())
    }
}

/// What is wrong with an output, where the page says what it should be.
fn differs(block: &Block, output: &str) -> Option<Failure> {
    let difference = compare(block.expected.as_ref()?, output)?;
    Some(Failure {
        line: difference.line,
        reason: "printed something else than the course shows".to_owned(),
        detail: difference.diff,
    })
}

/// Waits until a terminal's command has ended, which none should. Waits for ever where there are none.
async fn first_to_end(terminals: &mut Vec<Beside<'_>>) -> io::Result<Failure> {
    loop {
        for index in 0..terminals.len() {
            if let Some(failure) = terminals[index].failure()? {
                // Once is enough: blocks that need it fail by themselves.
                terminals.remove(index);
                return Ok(failure);
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Beside<'_> {
    /// What is wrong with a command that should stay: that it has ended.
    fn failure(&mut self) -> io::Result<Option<Failure>> {
        let Some(status) = self.terminal.has_ended()? else {
            return Ok(None);
        };
        Ok(Some(Failure {
            line: self.block.line,
            reason: format!(
                "the command in terminal {} has ended ({status}), but should stay",
                self.name
            ),
            detail: tail(&self.terminal.output()?),
        }))
    }
}
