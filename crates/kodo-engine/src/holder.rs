//! The identity of a process, by which another process on the same machine can tell whether it still lives.

use std::fs;

/// `BOOT_ID/PID_NAMESPACE/PID/START_TICKS`: no two processes ever have the same.
///
/// Parts that the system does not report (on anything but Linux) are empty. Such a holder is never provably dead, and its
/// work is taken over after the grace period instead of at once.
pub(crate) fn me() -> String {
    let pid = std::process::id();
    format!(
        "{}/{}/{pid}/{}",
        boot_id(),
        pid_namespace(),
        start_ticks(pid).unwrap_or_default()
    )
}

/// Whether the named process is this one.
pub(crate) fn is_me(holder: &str) -> bool {
    // If the system does not report the boot id, a process of another container may have the same identity.
    !boot_id().is_empty() && holder == me()
}

/// Whether the named process is certainly dead. Returns false if that cannot be known from here: for another machine or
/// container, for another boot of a machine that may have this one's disk, or if `/proc` hides other users' processes.
pub(crate) fn is_dead(holder: &str) -> bool {
    let mut parts = holder.split('/');
    let (Some(boot), Some(namespace), Some(pid), Some(started)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(pid) = pid.parse::<u32>() else {
        return false;
    };
    // Process 1 always lives: if it cannot be seen, neither can others (`hidepid`, proc(5)).
    if start_ticks(1).is_none() {
        return false;
    }
    if boot.is_empty() || boot != boot_id() || namespace.is_empty() || namespace != pid_namespace()
    {
        return false;
    }
    // The same pid with another start time is another process, so the named one is gone.
    start_ticks(pid).as_deref() != Some(started)
}

/// The process id in a holder's name, if the holder is of this machine and pid namespace.
pub(crate) fn pid_here(holder: &str) -> Option<u32> {
    let mut parts = holder.split('/');
    let (boot, namespace, pid) = (parts.next()?, parts.next()?, parts.next()?);
    (!boot.is_empty() && boot == boot_id() && namespace == pid_namespace())
        .then(|| pid.parse().ok())
        .flatten()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// When a living process started, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)). Returns `None` if
/// there is no such process, and for a zombie, which is dead and only not reaped yet.
fn start_ticks(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, which may itself contain parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_dead_and_a_killed_one_is_before_it_is_reaped() {
        assert!(!is_dead(&me()));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let ticks = start_ticks(child.id()).unwrap();
        let holder = format!("{}/{}/{}/{ticks}", boot_id(), pid_namespace(), child.id());
        assert!(!is_dead(&holder));
        child.kill().unwrap();
        while start_ticks(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(is_dead(&holder), "a zombie runs nothing");
        child.wait().unwrap();
        assert!(is_dead(&holder));
    }

    #[test]
    fn a_process_of_another_machine_or_container_is_never_provably_dead() {
        let ours = me();
        let (_, rest) = ours.split_once('/').unwrap();
        assert!(!is_dead(&format!("another-boot/{rest}")));
        assert!(!is_dead(&format!("{}/pid:[1]/1/1", boot_id())));
        assert!(!is_dead("nonsense"));
        assert!(!is_dead(""));
    }
}
