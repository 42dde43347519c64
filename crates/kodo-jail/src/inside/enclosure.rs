//! The jail's init, if there is an enclosure between the jail and the job: starts it and waits for its end.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::process::Resource;

use super::control::{die_with_parent, report, wait_for};
use super::{program, tree};
use crate::layout::ENCLOSURE;
use crate::sys::{self, Fork, Strings};
use crate::wire::{Enclosed, Fault, Spec};

/// What a refusal names if the program cannot be executed.
const FAILED: &str = "enclosure";

/// Starts the enclosure in a file tree of its own, and waits for its end. Runs as the init of the jail.
pub(crate) fn run(control: &UnixStream, spec: &Spec, enclosed: &Enclosed) -> Result<i32, Fault> {
    die_with_parent()?;
    tree::enter_enclosed(spec, enclosed)?;
    let text = |text: &str| CString::new(text).map_err(Fault::at("specification"));
    let program = text(ENCLOSURE)?;
    let name = [program.clone()].into_iter().map(Ok);
    let arguments = enclosed.arguments.iter().map(|it| text(it));
    let arguments = Strings::new(name.chain(arguments).collect::<Result<_, Fault>>()?);
    let environment = Strings::new(Vec::new());
    match sys::fork().map_err(Fault::at("fork"))? {
        Fork::Child => {
            let fault = match bind(control, enclosed) {
                Err(fault) => fault,
                Ok(()) => {
                    let error = sys::execute(&program, &arguments, &environment);
                    let what = "it cannot be executed where there are no libraries for it";
                    Fault::because(FAILED, what, error)
                }
            };
            // The control channel is standard input by now, or still where it was: one socket in either case.
            if let Ok(mut control) = control.try_clone() {
                report(&mut control, &fault);
            }
            sys::exit_now(1)
        }
        Fork::Parent(child) => Ok(wait_for(child)),
    }
}

fn bind(control: &UnixStream, enclosed: &Enclosed) -> Result<(), Fault> {
    // If memory runs out, the kernel kills this process and not one outside of the jail.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    program::limit(Resource::Core, 0)?;
    program::limit(Resource::Nproc, enclosed.processes)?;
    rustix::thread::set_no_new_privs(true).map_err(Fault::at("no-new-privileges"))?;
    sys::close_from(3, true).map_err(Fault::at("descriptors"))?;
    sys::duplicate_onto(control.as_fd(), 0, true).map_err(Fault::at("descriptors"))?;
    sys::reset_signals();
    Ok(())
}
