//! A process that ends with everything that it has started, also what has process groups of its own: a task runner gives
//! each task one. What has detached itself, as a database server does, is left alone.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal,
    test_kill_process_group,
};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a group may take to end after SIGTERM. A service's drain has ten seconds.
const GRACE: Duration = Duration::from_secs(20);

/// Pause between two looks whether a group is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process that leads a group of its own. Dropping it kills the group, and its descendants in other groups.
#[derive(Debug)]
pub(super) struct Leader {
    child: Child,
    group: Option<Pid>,
}

impl Leader {
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id.and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// The process itself, for its pipes and its end.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends the group and all descendants: SIGTERM to the group, which task runners pass on, and SIGKILL for what is left
    /// after the grace period.
    pub(super) async fn end(mut self) -> io::Result<()> {
        // Before the first of them ends: what has lost its parent cannot be found any more.
        let family = self.family();
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        // The leader is waited for first: a zombie still counts as a member of the group.
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        let lives = || {
            let group = self.group.map(test_kill_process_group);
            group.is_some_and(|found| found.is_ok()) || family.iter().any(is_there)
        };
        while Instant::now() < deadline && lives() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.kill(&family);
        if ended.is_err() {
            self.child.wait().await?;
        }
        self.group = None;
        Ok(())
    }

    fn family(&self) -> Vec<OwnedFd> {
        self.group.map(descendants).unwrap_or_default()
    }

    fn kill(&self, family: &[OwnedFd]) {
        self.signal(Signal::KILL);
        for process in family {
            // One that has gone is what was wanted.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // A group that is already gone is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.kill(&self.family());
    }
}

/// The descendants of a process as they are now, held open: a number may be given to another process, a descriptor not.
fn descendants(ancestor: Pid) -> Vec<OwnedFd> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Some(parent) = parent(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut family, mut parents) = (Vec::new(), vec![ancestor]);
    while let Some(parent) = parents.pop() {
        let born = children.remove(&parent).unwrap_or_default();
        family.extend(
            born.iter()
                .filter_map(|pid| pidfd_open(*pid, PidfdFlags::empty()).ok()),
        );
        parents.extend(born);
    }
    family
}

/// A descriptor of a process can be read from once the process is over.
fn is_there(process: &OwnedFd) -> bool {
    let mut process = [PollFd::new(process, PollFlags::IN)];
    poll(&mut process, Some(&Timespec::default())) == Ok(0)
}

/// The parent of a process, from `/proc/PID/stat`.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The program's name stands in parentheses and may hold any character.
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
    Pid::from_raw(parent.parse().ok()?)
}
