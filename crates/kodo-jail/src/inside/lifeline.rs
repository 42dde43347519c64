//! A program outside of a jail that ends with the service and is not the machine's user 0.
//!
//! For what an operator has decided to run unjailed. It is no sandbox: it decides which user the program is and how long
//! it lives, and nothing about what it may do.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::users::become_user;
use crate::layout::LIFELINE_ARGUMENT;

/// The command that runs `program` this way: it dies by `SIGKILL` with the thread that starts it, which must therefore
/// live as long as the program is wanted. `helper` is a program that calls
/// [`be_the_helper_if_asked`](crate::be_the_helper_if_asked). If this process is the machine's user 0, the program becomes `user`.
#[must_use]
pub fn lifeline_command(helper: &Path, program: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(helper);
    command
        .arg(LIFELINE_ARGUMENT)
        .arg(std::process::id().to_string())
        .arg(user.unwrap_or_default().to_string())
        .arg(program);
    command
}

/// Becomes the program. Returns only if that failed, with the reason; nothing runs then.
pub(crate) fn become_program(arguments: impl Iterator<Item = OsString>) -> String {
    let mut arguments = arguments;
    let mut number = || -> Option<u32> { arguments.next()?.to_str()?.parse().ok() };
    let (Some(parent), Some(user)) = (number(), number()) else {
        return format!("`{LIFELINE_ARGUMENT}` is of no use on a command line");
    };
    let Some(program) = arguments.next() else {
        return "no program is named".to_owned();
    };
    if user != 0
        && let Err(error) = rustix::thread::set_thread_groups(&[]).and_then(|()| become_user(user))
    {
        return format!("cannot become user {user}: {error}");
    }
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return "this process is still the machine's user 0".to_owned();
    }
    let bound = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| rustix::thread::set_no_new_privs(true));
    if let Err(error) = bound {
        return format!("lifeline: {error}");
    }
    // The parent may have died before the kernel was told to kill this process with it.
    let alive = getppid().map(Pid::as_raw_nonzero);
    if alive.and_then(|it| u32::try_from(it.get()).ok()) != Some(parent) {
        return "the process that started this one has ended".to_owned();
    }
    let error = Command::new(&program).args(arguments).exec();
    format!("{}: {error}", program.to_string_lossy())
}
