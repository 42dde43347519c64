//! The jail's namespaces.

use std::fs;
use std::os::fd::AsFd;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::defence::{Defence, on};
use crate::layout::USER;
use crate::sys;
use crate::wire::{Fault, Spec};

/// Moves this process, which must have one thread, into new namespaces; the pid namespace is its children's.
pub(crate) fn enter(spec: &Spec) -> Result<(), Fault> {
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
    // After a change of user, this process's own files in /proc belong to user 0 until it is made dumpable again.
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
    // An enclosure makes namespaces and mounts itself, for which it must be the namespace's user 0.
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
