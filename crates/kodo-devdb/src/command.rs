//! Child processes that end, one way or the other, before a deadline.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::error::DevDbError;

/// How a child process ended, and what it printed.
pub(crate) struct Finished {
    status: ExitStatus,
    pub(crate) stdout: String,
    stderr: String,
}

impl Finished {
    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }

    /// What to show a person when it failed: the end of what it printed, else how it ended.
    pub(crate) fn complaint(&self) -> String {
        let printed = match self.stderr.trim() {
            "" => self.stdout.trim(),
            stderr => stderr,
        };
        match last_lines(printed, 8) {
            lines if lines.is_empty() => self.status.to_string(),
            lines => lines,
        }
    }
}

/// Runs `command` to its end with no input, keeping what it prints.
///
/// A child that is not done by the deadline is killed; so is one whose caller goes away.
pub(crate) async fn run(mut command: Command, deadline: Duration) -> Result<Finished, DevDbError> {
    let program = name(&command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(deadline, command.output()).await {
        Ok(Ok(output)) => Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
        Ok(Err(source)) => Err(DevDbError::Spawn { program, source }),
        Err(_) => Err(DevDbError::Deadline {
            program,
            seconds: deadline.as_secs(),
        }),
    }
}

/// Does `command` run and succeed within the deadline?
pub(crate) async fn succeeds(command: Command, deadline: Duration) -> bool {
    run(command, deadline)
        .await
        .is_ok_and(|finished| finished.success())
}

/// The program's name without its folder, for messages.
pub(crate) fn name(command: &Command) -> String {
    let program = Path::new(command.as_std().get_program());
    program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// The last `count` lines of `text`.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_child_that_is_not_done_by_the_deadline_is_an_error() {
        let error = run(shell("sleep 30"), Duration::from_millis(50))
            .await
            .err()
            .unwrap();
        assert!(matches!(error, DevDbError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn the_complaint_of_a_failed_child_is_the_end_of_what_it_printed() {
        let finished = run(
            shell("echo out; seq 1 20 >&2; exit 3"),
            Duration::from_secs(5),
        )
        .await
        .unwrap();
        assert!(!finished.success());
        assert_eq!(finished.complaint(), "13\n14\n15\n16\n17\n18\n19\n20");
    }

    #[tokio::test]
    async fn the_complaint_of_a_silent_child_is_its_exit_status() {
        let finished = run(shell("exit 3"), Duration::from_secs(5)).await.unwrap();
        assert_eq!(finished.complaint(), "exit status: 3");
    }
}
