//! The first process inside gVisor: our own program, started by `runsc` as the first one of its sandbox.
//!
//! It is what [`first`](crate::first) is in the jail, with gVisor's kernel in the place of the machine's: that kernel
//! gives it a file tree, processes and a network of its own. It is user 0 in there, with a few rights over its own
//! sandbox; the job is another user with none, so that it reaches neither this process nor its conversation.
//!
//! Anywhere else it runs nothing.

use rustix::process::{Pid, getpid, getuid};

use crate::seccomp::Filters;
use crate::wire::{Fault, Kernel, Kind, Spec, from_json, receive};
use crate::{first, helper, sys};

/// The hidden argument that makes a program this.
pub(crate) const ARGUMENT: &str = "jail-guest";
/// What gVisor's kernel says first of all, and no other does.
const GREETING: &str = "Starting gVisor";

/// Is the first process of a sandbox of gVisor's, or refuses.
pub(crate) fn run() -> ! {
    // What a panic would print belongs to the job's streams; the service hears of it by the end of the talk.
    std::panic::set_hook(Box::new(|_| sys::exit_now(101)));
    if let Err(reason) = inside_gvisor() {
        eprintln!("`{ARGUMENT}` runs nothing outside of gVisor: {reason}");
        sys::exit_now(2)
    }
    let Ok(mut control) = helper::talk() else {
        eprintln!("`{ARGUMENT}` has nobody to talk with");
        sys::exit_now(2)
    };
    let done = receive(&mut control)
        .map_err(Fault::at("specification"))
        .and_then(|(kind, content)| match kind {
            Kind::Spec => from_json::<Spec>(&content).map_err(Fault::at("specification")),
            _ => Err(Fault::new("specification", "something else came first")),
        })
        .and_then(|spec| {
            let filters = Filters::build()?;
            first::run(&mut control, &spec, 0, &filters, Kernel::Gvisor)
        });
    match done {
        Ok(()) => sys::exit_now(0),
        Err(fault) => {
            helper::report(&mut control, &fault);
            sys::exit_now(1)
        }
    }
}

/// Asks the kernel itself: a variable or a file could be anybody's. On a machine its messages begin otherwise, or this
/// process may not read them; and it is no machine's first process.
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
