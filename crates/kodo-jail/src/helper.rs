//! The helper: our own program, executed again, that makes the jail around itself.
//!
//! ```text
//! service ── helper (leaves user 0, makes the namespaces) ── first process of the jail ── the job's program
//! ```
//!
//! The service never forks: it has threads. The helper has none, does what a fork allows, and talks with the
//! service over its standard input, a socket. Its standard output and error are the job's.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::process::{
    DumpableBehavior, Gid, Signal, Uid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::defence::{Defence, on};
use crate::lifeline;
use crate::seccomp::Filters;
use crate::sys::{self, Fork};
use crate::tree::USER;
use crate::wire::{Fault, Kernel, Kind, Spec, from_json, receive, send};
use crate::{cgroup, enclosure, first, guest};

/// The hidden argument that makes a program the helper.
pub(crate) const ARGUMENT: &str = "jail-init";
/// The descriptor that the conversation with the service has from the first moment on.
const CONTROL: i32 = 3;

/// Is the helper, if the program was started as such: a program that has a [`Jail`](crate::Jail) calls this
/// first thing in `main`, before there are threads. Returns otherwise.
pub fn be_the_helper_if_asked() {
    #[cfg(feature = "weaken")]
    crate::weaken::mark();
    let mut arguments = std::env::args_os();
    let mut others = std::env::args_os().skip(1);
    if others
        .next()
        .is_some_and(|first| first == lifeline::ARGUMENT)
    {
        eprintln!("{}", lifeline::become_program(others));
        sys::exit_now(126);
    }
    let asked = arguments.nth(1).filter(|_| arguments.next().is_none());
    if asked.as_ref().is_some_and(|it| it == ARGUMENT) {
        run();
    }
    if asked.is_some_and(|it| it == guest::ARGUMENT) {
        guest::run();
    }
}

/// Is the helper.
pub(crate) fn run() -> ! {
    // What a panic would print belongs to the job's streams; the service hears of it by the end of the talk.
    std::panic::set_hook(Box::new(|_| sys::exit_now(101)));
    match talk() {
        Err(_) => {
            eprintln!(
                "`{ARGUMENT}` is how kodo starts a sandbox; it is of no use on a command line"
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

/// Tells the service why nothing was run. If nobody listens any more, nobody needs to know.
pub(crate) fn report(control: &mut UnixStream, fault: &Fault) {
    if let Ok(content) = serde_json::to_vec(fault) {
        let _ = send(control, Kind::Fault, &content);
    }
}

/// Takes standard input, which must be a socket, out of the job's reach.
pub(crate) fn talk() -> std::io::Result<UnixStream> {
    let standard = sys::inherited(0)?;
    rustix::net::getpeername(&standard)?;
    if rustix::fs::fstat(&standard).map(|it| rustix::fs::FileType::from_raw_mode(it.st_mode))?
        != rustix::fs::FileType::Socket
    {
        return Err(std::io::Error::from_raw_os_error(libc::ENOTSOCK));
    }
    sys::duplicate_onto(standard.as_fd(), CONTROL, false)?;
    // From here on descriptor 0 is what a program without input expects.
    let nothing: OwnedFd = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    sys::duplicate_onto(nothing.as_fd(), 0, true)?;
    std::mem::forget(standard);
    Ok(UnixStream::from(sys::inherited(CONTROL)?))
}

fn make_jail(control: &mut UnixStream) -> Result<i32, Fault> {
    if on(Defence::Descriptors) {
        sys::close_from(CONTROL + 1, false).map_err(Fault::at("descriptors"))?;
    }
    lifeline()?;
    // What is the same for every job comes before the service has one.
    let filters = Filters::build()?;
    let (kind, content) = receive(control).map_err(Fault::at("specification"))?;
    if kind != Kind::Spec {
        return Err(Fault::new("specification", "something else came first"));
    }
    let spec: Spec = from_json(&content).map_err(Fault::at("specification"))?;
    for door in &spec.groups {
        cgroup::join(door).map_err(Fault::at("cgroup"))?;
    }
    if on(Defence::LeaveRoot) {
        leave_root(&spec)?;
    }
    // Another user: the kernel has forgotten whose death is ours.
    lifeline()?;
    let user = rustix::process::getuid().as_raw();
    namespaces(&spec)?;
    lifeline()?;
    match sys::fork().map_err(Fault::at("fork"))? {
        Fork::Child => {
            let run = match &spec.enclosed {
                None => first::run(control, &spec, user, &filters, Kernel::Machine).map(|()| 0),
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

/// Dies when the service does: its thread that started this process lives as long as the job.
pub(crate) fn lifeline() -> Result<(), Fault> {
    if on(Defence::Lifeline) {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(Fault::at("lifeline"))?;
    }
    Ok(())
}

/// Holds nothing of the job's, so that the end of its first process is the end of its streams.
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

/// Stops being the machine's user 0, before there is a user namespace: in one that user 0 made, its processes
/// are still user 0 to the machine, and files like /proc/sys/kernel/core_pattern ask for nothing else.
fn leave_root(spec: &Spec) -> Result<(), Fault> {
    let at = Fault::at("leave-root");
    if rustix::process::geteuid().is_root() || rustix::process::getegid().as_raw() == 0 {
        if rustix::process::geteuid().is_root() {
            let kept = spec.enclosed.iter().flat_map(|it| &it.groups);
            let kept: Vec<_> = kept.map(|it| Gid::from_raw(*it)).collect();
            rustix::thread::set_thread_groups(&kept).map_err(&at)?;
        }
        let mut last = Fault::new("leave-root", "there is no other user to become");
        let mut left = false;
        for user in &spec.become_users {
            match become_user(*user) {
                Ok(()) => {
                    left = true;
                    break;
                }
                Err(error) => last = at(error),
            }
        }
        if !left {
            return Err(last);
        }
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let roots = [
        user.is_root(),
        group.as_raw() == 0,
        rustix::process::geteuid().is_root(),
        rustix::process::getegid().as_raw() == 0,
        // The saved one would bring it back.
        become_user(0).is_ok(),
    ];
    if roots.contains(&true) {
        return Err(Fault::new(
            "leave-root",
            "this process is still the machine's user 0",
        ));
    }
    Ok(())
}

/// Does what follows as another user, as long as this process can still become the one that it was.
pub(crate) fn act_as_user(user: u32) -> rustix::io::Result<()> {
    let (root, uid, gid) = (Uid::ROOT, Uid::from_raw(user), Gid::from_raw(user));
    // Whoever is user 0 may change groups: before it acts as another one, or after it does no longer.
    if user == 0 {
        rustix::thread::set_thread_res_uid(root, uid, root)?;
        rustix::thread::set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)
    } else {
        rustix::thread::set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
        rustix::thread::set_thread_res_uid(root, uid, root)
    }
}

pub(crate) fn become_user(user: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn namespaces(spec: &Spec) -> Result<(), Fault> {
    let mut flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
    for (defence, flag) in [
        (Defence::PidNamespace, UnshareFlags::NEWPID),
        (Defence::NetNamespace, UnshareFlags::NEWNET),
        (Defence::IpcNamespace, UnshareFlags::NEWIPC),
        (Defence::UtsNamespace, UnshareFlags::NEWUTS),
        (Defence::CgroupNamespace, UnshareFlags::NEWCGROUP),
    ] {
        if on(defence) {
            flags |= flag;
        }
    }
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    // Having changed users, this process's own files in /proc belong to user 0 until it says otherwise.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(Fault::at("user-namespace"))?;
    // SAFETY: none of the flags makes the descriptors of threads differ, which is what can be unsound here;
    // and there is one thread.
    unsafe { unshare_unsafe(flags) }.map_err(|error| {
        Fault::new(
            "user-namespace",
            format_args!("the kernel makes none for this user: {error}"),
        )
    })?;
    let write = |name: &str, content: String| {
        fs::write(format!("/proc/self/{name}"), content)
            .map_err(|error| Fault::new("user-namespace", format_args!("{name}: {error}")))
    };
    write("setgroups", "deny".to_owned())?;
    // What brings a kernel along puts up walls of its own, for which it must be the namespace's user 0.
    let inside = if spec.enclosed.is_some() { 0 } else { USER };
    write("uid_map", format!("{inside} {} 1", user.as_raw()))?;
    write("gid_map", format!("{inside} {} 1", group.as_raw()))?;
    if on(Defence::Seccomp) && spec.enclosed.is_none() {
        // No user namespaces inside this one, whatever the filter of system calls does; where /proc/sys is
        // read-only, the filter holds alone.
        let _ = fs::write("/proc/sys/user/max_user_namespaces", "0");
    }
    if on(Defence::UtsNamespace) {
        rustix::system::sethostname(b"jail").map_err(Fault::at("uts-namespace"))?;
    }
    if on(Defence::NetNamespace) {
        loopback().map_err(Fault::at("net-namespace"))?;
    }
    Ok(())
}

fn loopback() -> std::io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    sys::loopback_up(socket.as_fd())
}
