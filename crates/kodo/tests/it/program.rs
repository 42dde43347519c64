//! The binary run to its end, in an environment that has nothing but what the test gives it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::support::program;

/// Bound on every run. Reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Runs `kodo` with these arguments and variables.
pub async fn kodo(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(program());
    command.args(arguments).env_clear();
    // Where no database is named, none is to be found by its default, nor waited for.
    if !environment.iter().any(|(name, _)| *name == "DB_PORT") {
        command
            .env("DB_PORT", "1")
            .env("DB_CONNECT_TIMEOUT_MS", "0");
    }
    command.envs(environment.iter().copied());
    to_the_end(command).await
}

/// Runs a command of the repository, with this process's environment and these variables.
pub async fn in_repository(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Ended {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut command = Command::new(root.join(program));
    command.args(arguments).current_dir(root);
    command.envs(environment.iter().copied());
    to_the_end(command).await
}

async fn to_the_end(mut command: Command) -> Ended {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let started = Instant::now();
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("the program ends")
        .expect("the program runs");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    }
}
