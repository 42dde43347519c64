//! The helper: our own program, executed again, that makes the jail around itself.
//!
//! ```text
//! service ── helper (leaves user 0, makes the namespaces) ── init of the jail ── the job's program
//! ```
//!
//! The service never forks: it has threads. The helper has one, does only what a fork allows, and its control channel to
//! the service is its standard input, a socket. Its standard output and error are the job's.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::control::{CONTROL, die_with_parent, receive_spec, report, take_control, wait_for};
use super::seccomp::Filters;
use super::{enclosure, gvisor_init, init, lifeline, namespaces, program, users};
use crate::defence::{Defence, on};
use crate::layout::{GUEST_ARGUMENT, HELPER_ARGUMENT, LIFELINE_ARGUMENT};
use crate::shortage;
use crate::sys::{self, Fork};
use crate::wire::{Fault, Kernel};

/// Becomes the helper if the program was started as such, and then does not return. A program that has a
/// [`Jail`](crate::Jail) calls this first in `main`, before there are threads.
pub fn be_the_helper_if_asked() {
    #[cfg(feature = "weaken")]
    crate::weaken::mark();
    let mut arguments = std::env::args_os();
    let mut others = std::env::args_os().skip(1);
    if others
        .next()
        .is_some_and(|first| first == LIFELINE_ARGUMENT)
    {
        let _ = writeln!(std::io::stderr(), "{}", lifeline::become_program(others));
        sys::exit_now(126);
    }
    let asked = arguments.nth(1).filter(|_| arguments.next().is_none());
    if asked.as_ref().is_some_and(|it| it == HELPER_ARGUMENT) {
        run();
    }
    if asked.is_some_and(|it| it == GUEST_ARGUMENT) {
        gvisor_init::run();
    }
}

/// Becomes the helper without the named defences, and does not return: for tests of what each of them stops.
#[cfg(feature = "weaken")]
#[doc(hidden)]
pub fn be_the_helper_without(names: &[std::ffi::OsString]) -> ! {
    crate::weaken::take_off(names);
    run()
}

/// Makes a jail and runs a job in it. Does not return.
fn run() -> ! {
    // A panic must not print to the job's streams; the service sees it by the end of the channel.
    std::panic::set_hook(Box::new(|_| sys::exit_now(101)));
    match take_control() {
        Err(_) => {
            let _ = writeln!(
                std::io::stderr(),
                "`{HELPER_ARGUMENT}` is how kodo starts a sandbox; it is of no use on a command line"
            );
            sys::exit_now(2)
        }
        Ok(mut control) => {
            let code = match make_jail(&mut control) {
                Ok(code) => code,
                Err(fault) => {
                    report(&mut control, &fault);
                    1
                }
            };
            sys::exit_now(code)
        }
    }
}

fn make_jail(control: &mut UnixStream) -> Result<i32, Fault> {
    if on(Defence::Descriptors) {
        sys::close_from(CONTROL + 1, false).map_err(Fault::at("descriptors"))?;
    }
    die_with_parent()?;
    // The same for every job, so it is made before there is one.
    let filters = Filters::build()?;
    let spec = receive_spec(control)?;
    for file in &spec.groups {
        enter_cgroup(file).map_err(Fault::at("cgroup"))?;
    }
    program::raise_open_files(spec.limits.open_files);
    if on(Defence::LeaveRoot) {
        let kept = spec.enclosed.as_ref().map_or(&[][..], |it| &it.groups);
        users::leave_root(&spec.become_users, kept)?;
    }
    // The change of user has made the kernel forget it.
    die_with_parent()?;
    let user = rustix::process::getuid().as_raw();
    namespaces::enter(&spec)?;
    die_with_parent()?;
    match sys::fork().map_err(Fault::at("fork"))? {
        Fork::Child => {
            let run = match &spec.enclosed {
                None => init::run(control, &spec, user, &filters, Kernel::Machine).map(|()| 0),
                Some(enclosed) => enclosure::run(control, &spec, enclosed),
            };
            let code = match run {
                Ok(code) => code,
                Err(fault) => {
                    report(control, &fault);
                    1
                }
            };
            sys::exit_now(code)
        }
        Fork::Parent(child) => Ok(wait_for(child)),
    }
}

/// Moves this process, which has one thread, into a cgroup; its children are born there.
fn enter_cgroup(file: &Path) -> io::Result<()> {
    // Never creates: these files are the kernel's.
    let mut opened = fs::File::options().write(true).open(file)?;
    opened.write_all(b"0").map_err(shortage::at(file.display()))
}
