//! `kodo demo` and `kodo prove --demo`: a checkout's `kodo-dev` shows them, and this binary says where to find that.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::cli::{DemoArgs, DemoCommand};
use crate::environment;
use crate::output;
use crate::settings::Given;

/// `scripts/kodo` sets it to the path of the checkout's `kodo-dev`.
const TOOL: &str = "KODO_DEV";

/// Exit code if there is nothing to hand over to, as of a wrong command line.
const NOT_HERE: u8 = 2;

/// `kodo demo …`
pub(crate) fn run(given: &Given, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let arguments: &[&str] = match args.which {
        None => &["demo"],
        Some(DemoCommand::Crash) => &["demo", "crash"],
        Some(DemoCommand::Work { allow_none: false }) => &["demo", "work"],
        Some(DemoCommand::Work { allow_none: true }) => &["demo", "work", "--allow-none"],
    };
    hand_over(given, "kodo demo", arguments)
}

/// `kodo prove --demo`
pub(crate) fn completion_bar(given: &Given) -> anyhow::Result<ExitCode> {
    hand_over(given, "kodo prove --demo", &["prove-demo"])
}

/// Becomes `kodo-dev`, with every setting that was given in its environment. Settings are checked by then.
/// Returns exit code 2, having said where to look, outside of a checkout.
fn hand_over(given: &Given, name: &str, arguments: &[&str]) -> anyhow::Result<ExitCode> {
    let Some(tool) = environment::variable(TOOL) else {
        output::tell(format_args!(
            "{name}: not part of this binary; in a checkout of the repository, run: {}",
            name.replacen("kodo", "scripts/kodo", 1)
        ));
        return Ok(ExitCode::from(NOT_HERE));
    };
    let error = command(&tool, given, arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", tool.display()))
}

fn command(tool: &OsStr, given: &Given, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command.args(arguments);
    for (variable, value) in given.variables() {
        match value {
            // A flag moves every demonstration's service, an exported variable only the crash demo's.
            Some(port) if variable == "PORT" && given.by_flag("PORT") => {
                command.args(["--port", port]);
            }
            Some(port) if variable == "ADMIN_PORT" && given.by_flag("ADMIN_PORT") => {
                command.args(["--admin-port", port]);
            }
            Some(value) => {
                command.env(variable, value);
            }
            None => {
                command.env_remove(variable);
            }
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::given;

    #[test]
    fn a_flag_moves_the_ports_of_every_demonstration_and_other_flags_become_variables() {
        let given = given(&["--port=4001", "--db-port", "5"]);
        let command = command(OsStr::new("kodo-dev"), &given, &["demo", "work"]);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["demo", "work", "--port", "4001"]);
        let mut variables = command.get_envs().filter(|(name, _)| *name == "DB_PORT");
        assert_eq!(variables.next().and_then(|it| it.1), Some(OsStr::new("5")));
    }
}
