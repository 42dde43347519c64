//! Tracing the processes that one has started, as a debugger does.

use std::io;
use std::ptr;

use crate::attacks::{Verdict, verdict};

/// Forks a child that asks to be traced, stops, and then makes a harmless call. Returns its id once it has stopped.
fn traced_child() -> io::Result<libc::pid_t> {
    // SAFETY: this program has one thread; the child makes three calls and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let none = ptr::null_mut::<libc::c_void>();
        // SAFETY: the calls take numbers and null pointers.
        unsafe {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) < 0 {
                libc::_exit(2);
            }
            libc::raise(libc::SIGSTOP);
            libc::syscall(libc::SYS_getppid);
            libc::_exit(0);
        }
    }
    let status = wait_for(child)?;
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(child)
}

fn wait_for(child: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    match unsafe { libc::waitpid(child, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

fn request(what: libc::c_uint, child: libc::pid_t, a: usize, b: usize) -> io::Result<i64> {
    // SAFETY: the requests below take numbers in the place of both pointers, and change nothing of this process.
    match unsafe { libc::ptrace(what, child, a, b) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// Reads a byte of the jail's init. Held where the kernel refuses that, whatever the address.
pub(crate) fn memory_of_the_first() -> Verdict {
    let mut byte = 0_u8;
    let mut here = libc::iovec {
        iov_base: ptr::from_mut(&mut byte).cast(),
        iov_len: 1,
    };
    let there = here;
    // SAFETY: both vectors live through the call, which writes at most the one byte that `here` names.
    let read = unsafe { libc::process_vm_readv(1, &raw mut here, 1, &raw const there, 1, 0) };
    let error = io::Error::last_os_error();
    verdict(read < 0 && error.raw_os_error() == Some(libc::EPERM), error)
}

/// Held where a process cannot trace its own child.
pub(crate) fn of_a_child() -> Verdict {
    match traced_child() {
        Err(error) => verdict(true, error),
        Ok(child) => {
            let ended = request(libc::PTRACE_KILL, child, 0, 0).and_then(|_| wait_for(child));
            verdict(false, format!("a child was traced: {ended:?}"))
        }
    }
}

/// Makes a traced child's harmless call another one, after the filter has seen it. Held where the filter sees the new one
/// too.
#[cfg(target_arch = "x86_64")]
pub(crate) fn around_the_filter() -> Verdict {
    const RAX: usize = 10 * 8;
    const RDI: usize = 14 * 8;
    const NUMBER: usize = 15 * 8;
    let tried = || -> io::Result<i64> {
        let child = traced_child()?;
        // To the entry of the call.
        request(libc::PTRACE_SYSCALL, child, 0, 0)?;
        wait_for(child)?;
        let unshare = libc::SYS_unshare as usize;
        request(libc::PTRACE_POKEUSER, child, NUMBER, unshare)?;
        request(
            libc::PTRACE_POKEUSER,
            child,
            RDI,
            libc::CLONE_NEWUSER as usize,
        )?;
        // To its end.
        request(libc::PTRACE_SYSCALL, child, 0, 0)?;
        wait_for(child)?;
        let mut result = 0_i64;
        // SAFETY: this request of the system call itself writes the word to the address in its last argument, which lives
        // through the call.
        let read = unsafe {
            libc::syscall(
                libc::SYS_ptrace,
                libc::PTRACE_PEEKUSER,
                child,
                RAX,
                ptr::from_mut(&mut result),
            )
        };
        if read < 0 {
            return Err(io::Error::last_os_error());
        }
        request(libc::PTRACE_KILL, child, 0, 0)?;
        Ok(result)
    };
    match tried() {
        Ok(result) => verdict(
            result == -i64::from(libc::EPERM),
            format!("the call that was put there returned {result}"),
        ),
        Err(error) => verdict(true, error),
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn around_the_filter() -> Verdict {
    verdict(true, "not tried on this architecture")
}
