//! What every process of the jail needs: the control channel to the service, and to end with its parent.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kodo_sandbox::provider::{from_json, receive, send};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::defence::{Defence, on};
use crate::sys;
use crate::wire::{Fault, Kind, Spec};

/// The descriptor of the control channel, from the start of a process on.
pub(crate) const CONTROL: i32 = 3;

/// Moves standard input, which must be a connected socket, to [`CONTROL`], and puts /dev/null in its place: the job must
/// not have it.
///
/// # Errors
/// If standard input is something else.
pub(crate) fn take_control() -> std::io::Result<UnixStream> {
    let standard = sys::inherited(0)?;
    rustix::net::getpeername(&standard)?;
    if rustix::fs::fstat(&standard).map(|it| rustix::fs::FileType::from_raw_mode(it.st_mode))?
        != rustix::fs::FileType::Socket
    {
        return Err(std::io::Error::from_raw_os_error(libc::ENOTSOCK));
    }
    sys::duplicate_onto(standard.as_fd(), CONTROL, false)?;
    let nothing: OwnedFd = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    sys::duplicate_onto(nothing.as_fd(), 0, true)?;
    std::mem::forget(standard);
    Ok(UnixStream::from(sys::inherited(CONTROL)?))
}

/// Receives the specification, which is the first message.
pub(crate) fn receive_spec(control: &mut UnixStream) -> Result<Spec, Fault> {
    let (kind, content) = receive::<Kind>(control).map_err(Fault::at("specification"))?;
    if kind != Kind::Spec {
        return Err(Fault::new("specification", "another message came first"));
    }
    from_json(&content).map_err(Fault::at("specification"))
}

/// Tells the service why nothing was run. An error means that nobody reads it any more, and then nobody needs it.
pub(crate) fn report(control: &mut UnixStream, fault: &Fault) {
    if let Ok(content) = serde_json::to_vec(fault) {
        let _ = send(control, Kind::Fault, &content);
    }
}

/// Makes this process end with its parent. To be called again after each change of user, by which the kernel forgets it.
///
/// The parent of the helper is a thread of the service, which lives as long as the job.
pub(crate) fn die_with_parent() -> Result<(), Fault> {
    if on(Defence::Lifeline) {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(Fault::at("lifeline"))?;
    }
    Ok(())
}

/// Waits for a child and returns the exit code for this process: 0 if the child ended with 0, otherwise 1.
///
/// Closes the job's streams and the control channel first, so that the end of the child is the end of those.
pub(crate) fn wait_for(child: libc::pid_t) -> i32 {
    let nothing = [0, 1, 2].map(|_| {
        rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
    });
    for (fd, nothing) in (0..).zip(&nothing) {
        if let Ok(nothing) = nothing {
            let _ = sys::duplicate_onto(nothing.as_fd(), fd, true);
            if fd == 0 {
                let _ = sys::duplicate_onto(nothing.as_fd(), CONTROL, false);
            }
        }
    }
    loop {
        match sys::reap(true) {
            Ok(Some(ended)) if ended.pid == child => {
                return i32::from(ended.status != 0);
            }
            Ok(_) => {}
            Err(_) => return 1,
        }
    }
}
