//! The init process inside gVisor: our own program, which `runsc` starts as the first process of its sandbox.
//!
//! It does what [`init`](super::init) does in the jail, with gVisor's kernel in the place of the machine's, which gives it a
//! file tree, processes and a network of its own. It is user 0 of the sandbox with a few capabilities; the job is another
//! user with none, so that it reaches neither this process nor its control channel.
//!
//! Outside of gVisor it runs nothing.

use std::io::Write;

use rustix::process::{Pid, getpid, getuid};

use super::control::{receive_spec, report, take_control};
use super::init;
use super::seccomp::Filters;
use crate::layout::GUEST_ARGUMENT;
use crate::sys;
use crate::wire::Kernel;

/// What the messages of gVisor's kernel begin with, and those of no other.
const GREETING: &str = "Starting gVisor";

/// Becomes the init process of a gVisor sandbox, or refuses. Does not return.
pub(crate) fn run() -> ! {
    // A panic must not print to the job's streams; the service sees it by the end of the channel.
    std::panic::set_hook(Box::new(|_| sys::exit_now(101)));
    if let Err(reason) = inside_gvisor() {
        let _ = writeln!(
            std::io::stderr(),
            "`{GUEST_ARGUMENT}` runs nothing outside of gVisor: {reason}"
        );
        sys::exit_now(2)
    }
    let Ok(mut control) = take_control() else {
        let _ = writeln!(
            std::io::stderr(),
            "`{GUEST_ARGUMENT}` has no control channel"
        );
        sys::exit_now(2)
    };
    let done = receive_spec(&mut control).and_then(|spec| {
        let filters = Filters::build()?;
        init::run(&mut control, &spec, 0, &filters, Kernel::Gvisor)
    });
    match done {
        Ok(()) => sys::exit_now(0),
        Err(fault) => {
            report(&mut control, &fault);
            sys::exit_now(1)
        }
    }
}

/// Asks the kernel itself, since anybody can set a variable or write a file. On a machine the kernel's messages begin
/// otherwise, or this process may not read them, and this is not its first process.
fn inside_gvisor() -> Result<(), String> {
    if getpid() != Pid::INIT || !getuid().is_root() {
        return Err("this is not the first process of a sandbox".to_owned());
    }
    let log = sys::kernel_log().map_err(|error| format!("the kernel's messages: {error}"))?;
    match log.lines().next() {
        Some(line) if line.contains(GREETING) => Ok(()),
        _ => Err("this kernel is not gVisor's".to_owned()),
    }
}
