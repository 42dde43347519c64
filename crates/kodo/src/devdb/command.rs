//! Child processes that end before a deadline.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

/// Runs `command` to its end with no input, and returns what it printed on standard output. A child that is not done by the
/// deadline is killed; so is one whose caller goes away.
///
/// # Errors
/// If it cannot be run, does not end in time, or fails: then with the end of what it printed.
pub(super) async fn run(mut command: Command, deadline: Duration) -> anyhow::Result<String> {
    let program = name(&command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(deadline, command.output()).await else {
        bail!("{program} was not done after {} s", deadline.as_secs());
    };
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = match errors.trim() {
        "" => printed.trim(),
        errors => errors,
    };
    match last_lines(said, 8) {
        lines if lines.is_empty() => bail!("{program}: {}", output.status),
        lines => bail!("{program}: {lines}"),
    }
}

/// The program's name without its folder, for messages.
fn name(command: &Command) -> String {
    let program = Path::new(command.as_std().get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The last `count` lines of `text`.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, deadline: Duration) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, deadline).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_child_that_is_not_done_by_the_deadline_is_an_error() {
        let error = shell("sleep 30", Duration::from_millis(50)).await;
        assert!(error.starts_with("sh was not done after"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_child_is_an_error_with_the_end_of_what_it_printed_or_its_exit_status() {
        let minute = Duration::from_secs(60);
        let error = shell("echo out; seq 1 20 >&2; exit 3", minute).await;
        assert_eq!(error, "sh: 13\n14\n15\n16\n17\n18\n19\n20");
        assert_eq!(shell("exit 3", minute).await, "sh: exit status: 3");
    }
}
