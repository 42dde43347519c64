//! A terminal beside the shell of the course, for a command that stays: a service.

use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::course::group::Leader;
use crate::course::shell::BlockFile;

/// Pause between two looks whether a terminal's command has ended.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A block that runs in a shell of its own.
#[derive(Debug)]
pub(crate) struct Terminal {
    leader: Leader,
    file: BlockFile,
    _folder: TempDir,
}

impl Terminal {
    /// Starts it. `command` brings environment and working folder.
    pub(crate) fn start(mut command: Command, code: &str) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("kodo-course-").tempdir()?;
        let file = BlockFile::new(folder.path(), "terminal");
        file.write(code)?;
        let output = File::create(&file.output)?;
        command
            .args(["--noprofile", "--norc"])
            .arg(&file.commands)
            .stdin(Stdio::null())
            .stderr(Stdio::from(output.try_clone()?))
            .stdout(Stdio::from(output));
        Ok(Self {
            leader: Leader::spawn(&mut command)?,
            file,
            _folder: folder,
        })
    }

    /// How it ended by itself, if it has; a command that stays should not.
    pub(crate) fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.leader.child().try_wait()
    }

    /// What was printed so far.
    pub(crate) fn output(&self) -> io::Result<String> {
        self.file.read()
    }

    /// Ends it as Ctrl-C or a supervisor would, and says what it had printed by then.
    pub(crate) async fn end(self) -> io::Result<String> {
        let Self {
            leader,
            file,
            _folder,
        } = self;
        leader.end().await?;
        file.read()
    }
}
