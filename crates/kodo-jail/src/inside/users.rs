//! Which user a process of the jail is: leaving the machine's user 0, and becoming the job's user inside gVisor.

use std::os::fd::AsFd;

use rustix::process::{Gid, Uid};

use crate::wire::Fault;

/// Stops being the machine's user 0, and proves it: none of its ids is 0, and it cannot become user 0 again.
///
/// To be called before there is a user namespace: in one that user 0 made, its processes are still user 0 to the machine,
/// and files like /proc/sys/kernel/core_pattern check nothing else.
///
/// # Errors
/// If no user of `users` can be become, or this process is still user 0.
///
/// The job's two streams become that user's, so that it can open them by name (/dev/stdout).
pub(crate) fn leave_root(users: &[u32], kept_groups: &[u32]) -> Result<(), Fault> {
    let at = Fault::at("leave-root");
    if rustix::process::geteuid().is_root() || rustix::process::getegid().as_raw() == 0 {
        if rustix::process::geteuid().is_root() {
            let kept: Vec<_> = kept_groups.iter().map(|it| Gid::from_raw(*it)).collect();
            rustix::thread::set_thread_groups(&kept).map_err(&at)?;
        }
        let mut last = Fault::new("leave-root", "there is no other user to become");
        let mut left = false;
        for user in users {
            give_streams(*user);
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
        // A saved user id of 0 would bring it back.
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

fn give_streams(user: u32) {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    let (out, err) = (std::io::stdout(), std::io::stderr());
    for stream in [out.as_fd(), err.as_fd()] {
        // If it fails, the job can write to its streams all the same.
        let _ = rustix::fs::fchown(stream, Some(user), Some(group));
    }
}

/// Becomes a user, with all of this process's user and group ids.
pub(crate) fn become_user(user: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    // The group first: another user may no longer change it.
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Acts as another user from here on, and can go back to user 0 by `act_as_user(0)`.
pub(crate) fn act_as_user(user: u32) -> rustix::io::Result<()> {
    let (root, uid, gid) = (Uid::ROOT, Uid::from_raw(user), Gid::from_raw(user));
    // Only user 0 may change groups: so before it acts as another user, and after it has stopped to.
    if user == 0 {
        rustix::thread::set_thread_res_uid(root, uid, root)?;
        rustix::thread::set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)
    } else {
        rustix::thread::set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
        rustix::thread::set_thread_res_uid(root, uid, root)
    }
}
