//! The jail's namespaces.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

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
        match forbidden(Path::new("/proc/sys/user")) {
            Some(setting) => Fault::new("user-namespace", format_args!("{setting} is 0: {error}")),
            None => Fault::because(
                "user-namespace",
                "the kernel makes none for this user",
                error,
            ),
        }
    })?;
    let write = |name: &str, content: String| {
        fs::write(format!("/proc/self/{name}"), content)
            .map_err(|error| Fault::because("user-namespace", name, error))
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

/// The setting of the kernel that allows no namespaces of a kind at all, for which it says that there is no room for one.
fn forbidden(settings: &Path) -> Option<String> {
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let names = kinds.map(|kind| format!("max_{kind}_namespaces"));
    let zero =
        |name: &String| fs::read_to_string(settings.join(name)).is_ok_and(|it| it.trim() == "0");
    let found = names.into_iter().find(zero);
    found.map(|name| format!("user.{name}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_allows_no_namespaces_is_named_and_one_that_is_used_up_is_not() {
        let settings = tempfile::tempdir().unwrap();
        let put = |kind: &str, most: &str| {
            fs::write(settings.path().join(format!("max_{kind}_namespaces")), most).unwrap();
        };
        put("user", "96365\n");
        assert_eq!(forbidden(settings.path()), None);
        put("net", "0\n");
        let named = forbidden(settings.path());
        assert_eq!(named.as_deref(), Some("user.max_net_namespaces"));
    }
}
