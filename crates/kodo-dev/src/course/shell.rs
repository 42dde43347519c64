//! The one shell that all blocks of a course share.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::course::group::Leader;

/// What the shell itself runs; the blocks are read from files that it is told of.
const DRIVER: &str = include_str!("driver.bash");

/// A bash with the blocks' variables and functions in it.
#[derive(Debug)]
pub(crate) struct Shell {
    leader: Leader,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    blocks: usize,
}

/// How a block went.
#[derive(Debug)]
pub(crate) enum Ran {
    /// To its end, or to the first command that failed: the line of that one within the block, counted from 1.
    Through {
        code: i32,
        failed_line: Option<usize>,
    },
    /// It ended the shell.
    EndedShell(ExitStatus),
    /// It did not end in time. The shell is of no more use.
    TimedOut,
}

impl Shell {
    /// Starts one. `command` brings environment and working folder.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("kodo-course-").tempdir()?;
        let driver = folder.path().join("driver.bash");
        std::fs::write(&driver, DRIVER)?;
        command
            .args(["--noprofile", "--norc"])
            .arg(&driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut leader = Leader::spawn(&mut command)?;
        let child = leader.child();
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the shell has no pipes"));
        };
        Ok(Self {
            leader,
            commands,
            answers: BufReader::new(answers).lines(),
            folder,
            blocks: 0,
        })
    }

    /// A place for the next block and its output.
    pub(crate) fn next_block(&mut self) -> BlockFile {
        self.blocks += 1;
        BlockFile::new(self.folder.path(), &format!("block-{}", self.blocks))
    }

    /// Runs a block that stands in its file.
    pub(crate) async fn run(&mut self, block: &BlockFile, limit: Duration) -> io::Result<Ran> {
        let told = format!("{}\n", block.commands.display());
        // A shell that a block has ended cannot be told anything; reading its answer shows it.
        let _ = self.commands.write_all(told.as_bytes()).await;
        let answer = match tokio::time::timeout(limit, self.answers.next_line()).await {
            Err(_) => return Ok(Ran::TimedOut),
            Ok(answer) => answer?,
        };
        let Some(answer) = answer else {
            return Ok(Ran::EndedShell(self.leader.child().wait().await?));
        };
        let mut numbers = answer.split(' ').map(str::parse::<i32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(code)), Some(Ok(line))) => Ok(Ran::Through {
                code,
                failed_line: usize::try_from(line).ok().filter(|line| *line > 0),
            }),
            _ => Err(io::Error::other(format!("the shell answered {answer:?}"))),
        }
    }

    /// Ends it, with everything that its blocks left running.
    pub(crate) async fn end(self) -> io::Result<ExitStatus> {
        let Self {
            leader,
            commands,
            folder,
            ..
        } = self;
        drop(commands);
        let status = leader.end().await;
        folder.close()?;
        status
    }
}

/// A block's commands as a file, and its output as another one: a file neither fills up, as a pipe does, nor is it
/// held open by what a block leaves behind.
#[derive(Debug)]
pub(crate) struct BlockFile {
    pub(crate) commands: PathBuf,
    pub(crate) output: PathBuf,
}

impl BlockFile {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self {
            commands: folder.join(name),
            output: folder.join(format!("{name}.output")),
        }
    }

    /// Writes the commands. One whole file, so that the shell counts lines as the page does.
    pub(crate) fn write(&self, code: &str) -> io::Result<()> {
        std::fs::write(&self.commands, code)
    }

    /// What was printed so far, standard output and standard error as they came.
    pub(crate) fn read(&self) -> io::Result<String> {
        match std::fs::read(&self.output) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}
