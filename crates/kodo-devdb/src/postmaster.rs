//! Is there a server on a cluster? Read from its `postmaster.pid`, and believed only if the process fits.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

/// What a cluster's `postmaster.pid` and the process it names say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Postmaster {
    /// There is no pid file: it was never started or has shut down.
    Absent,
    /// It lives.
    Alive {
        /// Its process id.
        pid: i32,
        /// Its port.
        port: u16,
    },
    /// The pid file is left over: its process is gone, or dead and not yet reaped, or another program's by now.
    Stale,
}

impl Postmaster {
    /// Looks at the cluster in `folder`, an absolute path.
    pub(crate) fn of(folder: &Path) -> Self {
        let Ok(text) = fs::read_to_string(folder.join("postmaster.pid")) else {
            return Self::Absent;
        };
        match parse(&text) {
            Some((pid, port)) if is_postgres_in(pid, folder) => Self::Alive { pid, port },
            _ => Self::Stale,
        }
    }
}

/// Process id and port, lines 1 and 4. The file is written in two goes, so the port may not be there yet: 0.
fn parse(text: &str) -> Option<(i32, u16)> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 1)?;
    let port = lines
        .nth(2)
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or(0);
    Some((pid, port))
}

/// Asks the server on `folder` to stop, if it is still the process `pid`. Returns whether a signal was sent.
///
/// `SIGINT` is a fast shutdown, `SIGQUIT` an immediate one.
pub(crate) fn signal(folder: &Path, pid: i32, signal: Signal) -> bool {
    let Some(target) = Pid::from_raw(pid) else {
        return false;
    };
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        // Hold the process first and look at it afterwards: its number cannot become somebody else's in between.
        match pidfd_open(target, PidfdFlags::empty()) {
            Ok(held) => {
                return is_postgres_in(pid, folder) && pidfd_send_signal(held, signal).is_ok();
            }
            // Sandboxes may not know the call.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            Err(_) => return false,
        }
    }
    is_postgres_in(pid, folder) && rustix::process::kill_process(target, signal).is_ok()
}

/// Waits until no process of Postgres lives in `folder`; returns those that still do at the deadline.
///
/// After a `kill -9` of the postmaster its children notice within moments; a start before that fails.
pub(crate) async fn wait_until_deserted(folder: &Path, deadline: Duration) -> Vec<i32> {
    let end = Instant::now() + deadline;
    loop {
        let pids = residents(folder);
        if pids.is_empty() || Instant::now() >= end {
            return pids;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Is `pid` a living process of Postgres on the cluster in `folder`? All of them have the cluster as working folder.
#[cfg(target_os = "linux")]
fn is_postgres_in(pid: i32, folder: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(stat) = fs::read_to_string(process.join("stat")) else {
        return false;
    };
    // pid (name) state …, and a name may hold anything, parentheses included.
    let Some((name, state)) = stat
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(") "))
    else {
        return false;
    };
    if !name.starts_with("postgres") || state.starts_with(['Z', 'X']) {
        return false;
    }
    match fs::read_link(process.join("cwd")) {
        Ok(cwd) => cwd == folder,
        // Another user's process does not show it; its command line names the folder.
        Err(_) => fs::read(process.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*folder.to_string_lossy())),
    }
}

/// The living processes of Postgres on the cluster in `folder`.
#[cfg(target_os = "linux")]
fn residents(folder: &Path) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_postgres_in(*pid, folder))
        .collect()
}

/// Is `pid` the postmaster of the cluster in `folder`? Without `/proc`, its command line says so.
#[cfg(not(target_os = "linux"))]
fn is_postgres_in(pid: i32, folder: &Path) -> bool {
    let arguments = ["-ww", "-o", "stat=,command=", "-p", &pid.to_string()];
    let Ok(output) = std::process::Command::new("ps").args(arguments).output() else {
        return false;
    };
    let line = String::from_utf8_lossy(&output.stdout);
    let line = line.trim();
    !line.starts_with('Z') && line.contains("postgres") && line.contains(&*folder.to_string_lossy())
}

/// Without `/proc` nothing is known of orphans; Postgres itself refuses to start beside them.
#[cfg(not(target_os = "linux"))]
fn residents(_folder: &Path) -> Vec<i32> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_gives_process_and_port() {
        assert_eq!(
            parse("123\n/data/pg/15\n1700000000\n54329\n\n127.0.0.1\n"),
            Some((123, 54329))
        );
        assert_eq!(parse("123\n/data"), Some((123, 0)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("-5\n"), None);
        assert_eq!(parse("1\n"), None);
    }

    #[test]
    fn a_pid_file_that_names_another_program_is_stale_and_that_program_gets_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        let mut bystander = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let pid = i32::try_from(bystander.id()).unwrap();
        fs::write(
            folder.path().join("postmaster.pid"),
            format!("{pid}\nx\n0\n5\n"),
        )
        .unwrap();
        assert_eq!(Postmaster::of(folder.path()), Postmaster::Stale);
        assert!(!signal(folder.path(), pid, Signal::QUIT));
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn a_folder_without_a_pid_file_has_no_postmaster() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Postmaster::of(folder.path()), Postmaster::Absent);
    }
}
