//! The system calls that no crate offers safely. All `unsafe` code of this crate is here, except one call of `unshare` in
//! `inside/namespaces.rs`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::mount::MountAttrFlags;

/// The two sides of a fork.
pub(crate) enum Fork {
    /// This is the child.
    Child,
    /// This is the parent of that child.
    Parent(libc::pid_t),
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Forks.
///
/// # Errors
/// If the process may have no more children, or has other threads than this one: a fork would copy locks that they hold.
pub(crate) fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count());
    if threads != 1 {
        return Err(io::Error::other("this process has threads"));
    }
    // SAFETY: the process has one thread, as was just seen, so no lock can be held by a thread that the child
    // lacks; the child may do whatever the parent may.
    match checked(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends the process immediately, without running destructors of what a fork has copied.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any integer, touches no memory of ours and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` on, or, with `on_exec`, marks them to be closed by an exec.
pub(crate) fn close_from(first: RawFd, on_exec: bool) -> io::Result<()> {
    let flags = if on_exec {
        libc::CLOSE_RANGE_CLOEXEC
    } else {
        0
    };
    let first = libc::c_uint::try_from(first).unwrap_or(0);
    // SAFETY: the call takes three integers. Closing descriptors that Rust objects own would be a fault of
    // the caller's; the callers own none at or above `first` but such as they no longer use.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Marks every descriptor but the three standard ones to be closed on an exec, one after the other: for a kernel that
/// can only close ranges of them.
pub(crate) fn close_each_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|it| it.parse::<RawFd>().ok()) else {
            continue;
        };
        if fd > 2 {
            // SAFETY: the call takes three integers, and changes nothing but what an exec does with a descriptor that
            // is open, or fails for one that is not: that of the folder that is being read.
            checked(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        }
    }
    Ok(())
}

/// Begins a session. Its number is not looked at: older versions of gVisor say 0.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: the call takes nothing.
    checked(unsafe { libc::setsid() }).map(drop)
}

/// Makes `to` refer to what `from` refers to, whatever it was before, to be kept over an exec or not.
pub(crate) fn duplicate_onto(from: BorrowedFd<'_>, to: RawFd, on_exec: bool) -> io::Result<()> {
    let flags = if on_exec { 0 } else { libc::O_CLOEXEC };
    // SAFETY: the call takes three integers; `from` is open as long as it is borrowed.
    checked(unsafe { libc::dup3(from.as_raw_fd(), to, flags) }).map(drop)
}

/// Takes a descriptor that this process was started with.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers.
    checked(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: the descriptor is open, as was just seen, and nothing else in this process owns it: it is taken
    // once, at the beginning of the process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives every signal its default action and blocks none, as a program expects to find it.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: a zeroed `sigaction` is a valid one with `SIG_DFL`, an empty mask and no flags. The call
        // fails for the few signals that have no other action, which changes nothing.
        unsafe {
            let action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
    // SAFETY: the set is initialised by `sigemptyset` before it is used, and lives through the call.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Blocks `SIGCHLD` and returns a descriptor that becomes readable when a child has ended.
pub(crate) fn children_ended() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by `sigemptyset` before it is used, and lives through both calls; the
    // descriptor that `signalfd` returns is new and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        checked(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()))?;
        let fd = checked(libc::signalfd(
            -1,
            &set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A child that has ended.
pub(crate) struct Ended {
    pub(crate) pid: libc::pid_t,
    pub(crate) status: libc::c_int,
}

/// Reaps one child. Returns `None` if none has ended yet and `wait` is false, and an error if there is no child.
pub(crate) fn reap(wait: bool) -> io::Result<Option<Ended>> {
    let flags = if wait { 0 } else { libc::WNOHANG };
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for an integer that lives through the call.
        match checked(unsafe { libc::waitpid(-1, &mut status, flags | libc::__WALL) }) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some(Ended { pid, status })),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Kills every process that this one may kill, except itself: for the init of a pid namespace, all others in it.
pub(crate) fn kill_all() {
    // SAFETY: the call takes two integers.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// What all children that were reaped have used: user time, system time, the largest of them in bytes.
pub(crate) fn children_used() -> (Duration, Duration, u64) {
    // SAFETY: a zeroed `rusage` is a valid one, and a place for the kernel to write to that lives through the
    // call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let time = |it: libc::timeval| {
        Duration::from_secs(u64::try_from(it.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(it.tv_usec).unwrap_or(0))
    };
    let largest = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    (time(usage.ru_utime), time(usage.ru_stime), largest)
}

/// Sets attributes of a mount that `tree` refers to and, `below`, of those below it.
pub(crate) fn set_mount_attributes(
    tree: BorrowedFd<'_>,
    set: MountAttrFlags,
    below: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the attributes are of the size that is given, and both live through the
    // call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a zeroed `ifreq` is a valid one; the name fits with its final NUL; the request lives through the
    // call, which reads the name and the flags.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        checked(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &request,
        ))
        .map(drop)
    }
}

/// The version of the kernel's Landlock, 0 for none.
pub(crate) fn landlock_version() -> i32 {
    const VERSION: libc::c_uint = 1;
    let nothing: *const libc::c_void = ptr::null();
    // SAFETY: asked for its version, the call takes no ruleset and reads no memory.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// The beginning of the kernel's messages, as far as this process may read them.
pub(crate) fn kernel_log() -> io::Result<String> {
    const READ_ALL: libc::c_int = 3;
    let mut buffer = vec![0_u8; 4096];
    // SAFETY: the buffer is writable, of the length that is given, and lives through the call.
    let count = checked(unsafe {
        libc::klogctl(
            READ_ALL,
            buffer.as_mut_ptr().cast(),
            libc::c_int::try_from(buffer.len()).unwrap_or(0),
        )
    })?;
    buffer.truncate(usize::try_from(count).unwrap_or(0));
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Arguments in the form that `execve` takes.
pub(crate) struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    pub(crate) fn new(owned: Vec<CString>) -> Self {
        let pointers = owned
            .iter()
            .map(|it| it.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            _owned: owned,
            pointers,
        }
    }
}

/// Becomes another program. Returns only if that failed.
pub(crate) fn execute(program: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: the program is a C string; both arrays end with a null pointer and point to C strings that the
    // `Strings` own, whose buffers do not move when they do.
    unsafe {
        libc::execve(
            program.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    io::Error::last_os_error()
}

/// Applies a filter of system calls to this process for good, and returns what is asked by it. Instructions are their
/// code, jumps if true and if false, and value.
pub(crate) fn filter_with_listener(instructions: Vec<(u16, u8, u8, u32)>) -> io::Result<OwnedFd> {
    let mut instructions: Vec<libc::sock_filter> = instructions
        .into_iter()
        .map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the program points to instructions of the length that it says, and both live through the call; the
    // descriptor that it returns is new and owned by nobody else.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        let fd = checked(libc::c_int::try_from(fd).unwrap_or(-1))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A call that a filter asks about.
pub(crate) struct Asked {
    id: u64,
    pub(crate) pid: u32,
    pub(crate) call: libc::c_long,
    pub(crate) arguments: [u64; 6],
}

/// The requests of a listener: `_IOWR(33, 0, struct seccomp_notif)` and `_IOWR(33, 1, struct seccomp_notif_resp)`.
const RECEIVE: u64 = 0xc050_2100;
const ANSWER: u64 = 0xc018_2101;

/// Takes a call that a filter asks about. An error if its process has ended meanwhile.
pub(crate) fn asked(listener: BorrowedFd<'_>) -> io::Result<Asked> {
    // SAFETY: a zeroed structure is a valid one, as the kernel demands it, and lives through the call.
    let asked = unsafe {
        let mut asked: libc::seccomp_notif = std::mem::zeroed();
        checked(libc::ioctl(
            listener.as_raw_fd(),
            RECEIVE as _,
            &raw mut asked,
        ))?;
        asked
    };
    Ok(Asked {
        id: asked.id,
        pid: asked.pid,
        call: asked.data.nr.into(),
        arguments: asked.data.args,
    })
}

/// Answers: fails the call with an error, or lets the kernel carry it out, as the other filters allow.
pub(crate) fn answer(listener: BorrowedFd<'_>, asked: &Asked, error: Option<i32>) {
    let answer = libc::seccomp_notif_resp {
        id: asked.id,
        val: 0,
        error: error.map_or(0, |it| -it),
        flags: if error.is_none() {
            libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32
        } else {
            0
        },
    };
    // SAFETY: the structure lives through the call, which only reads it. It fails if the process has ended meanwhile, which
    // nobody needs to know.
    unsafe { libc::ioctl(listener.as_raw_fd(), ANSWER as _, &raw const answer) };
}
