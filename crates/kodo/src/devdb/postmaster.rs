//! Whether a server runs on a cluster: read from its `postmaster.pid`, and believed only if the process fits.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

/// What a cluster's `postmaster.pid` and the process it names say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Postmaster {
    /// There is no pid file: the server was never started or has shut down.
    Absent,
    /// It runs.
    Alive {
        /// Its process id.
        pid: i32,
        /// Its port; 0 if the server has not written it yet.
        port: u16,
    },
    /// The pid file is left over: its process is gone, dead and not yet reaped, or another program.
    Stale,
}

impl Postmaster {
    /// Looks at the cluster in `folder`, an absolute path.
    pub(super) fn of(folder: &Path) -> Self {
        let Ok(text) = fs::read_to_string(folder.join("postmaster.pid")) else {
            return Self::Absent;
        };
        match parse(&text) {
            Some((pid, port)) if is_postgres_in(pid, folder) => Self::Alive { pid, port },
            _ => Self::Stale,
        }
    }
}

/// Process id and port, lines 1 and 4.
fn parse(text: &str) -> Option<(i32, u16)> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 1)?;
    let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
    Some((pid, port.unwrap_or(0)))
}

/// Sends a signal to the server on `folder`, if it is still the process `pid`. Returns whether it was sent.
///
/// `SIGINT` is a fast shutdown, `SIGQUIT` an immediate one.
pub(super) fn signal(folder: &Path, pid: i32, signal: Signal) -> bool {
    let Some(target) = Pid::from_raw(pid) else {
        return false;
    };
    // The process is held before it is looked at: its number cannot become another process's in between.
    match pidfd_open(target, PidfdFlags::empty()) {
        Ok(held) => is_postgres_in(pid, folder) && pidfd_send_signal(held, signal).is_ok(),
        // Sandboxes may not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            is_postgres_in(pid, folder) && kill_process(target, signal).is_ok()
        }
        Err(_) => false,
    }
}

/// Waits until no process of Postgres lives in `folder`; returns those that still do at the deadline.
///
/// After a `kill -9` of the postmaster its children notice within moments; a start before that fails.
pub(super) async fn wait_until_deserted(folder: &Path, deadline: Duration) -> Vec<i32> {
    let end = Instant::now() + deadline;
    loop {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pids: Vec<i32> = pids.filter(|pid| is_postgres_in(*pid, folder)).collect();
        if pids.is_empty() || Instant::now() >= end {
            return pids;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether `pid` is a living process of Postgres on the cluster in `folder`. All of them have the cluster as working folder.
fn is_postgres_in(pid: i32, folder: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(stat) = fs::read_to_string(process.join("stat")) else {
        return false;
    };
    // "pid (name) state …", and a name may hold anything, parentheses included.
    let name_and_state = stat
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(") "));
    let Some((name, state)) = name_and_state else {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_gives_process_and_port() {
        let whole = "123\n/data/pg/15\n1700000000\n54329\n\n127.0.0.1\n";
        assert_eq!(parse(whole), Some((123, 54329)));
        assert_eq!(parse("123\n/data"), Some((123, 0)));
        for wrong in ["", "-5\n", "1\n"] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[test]
    fn a_pid_file_that_names_another_program_is_stale_and_that_program_gets_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Postmaster::of(folder.path()), Postmaster::Absent);
        let mut bystander = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(folder.path())
            .spawn()
            .unwrap();
        let pid = i32::try_from(bystander.id()).unwrap();
        let pid_file = folder.path().join("postmaster.pid");
        fs::write(pid_file, format!("{pid}\nx\n0\n5\n")).unwrap();
        assert_eq!(Postmaster::of(folder.path()), Postmaster::Stale);
        assert!(!signal(folder.path(), pid, Signal::QUIT));
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}
