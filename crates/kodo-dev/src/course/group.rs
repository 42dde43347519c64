//! What a block starts ends with it, also what its own processes have started.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::course::family::Family;

/// How long a group may take to end after SIGTERM. A service's drain has ten seconds.
const GRACE: Duration = Duration::from_secs(20);

/// Pause between two looks whether a group is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process that leads a group of its own. Dropping it kills the group, and its
/// descendants in other groups.
#[derive(Debug)]
pub(crate) struct Leader {
    child: Child,
    group: Option<Pid>,
}

impl Leader {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    /// The process itself, for its pipes and its end.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends the group and all descendants: SIGTERM to the group, which task runners pass on, and SIGKILL for what is left
    /// after the grace period.
    pub(crate) async fn end(mut self) -> io::Result<ExitStatus> {
        // Before the first of them ends: what has lost its parent cannot be found any more.
        let family = self.family();
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        // The leader is waited for first: a zombie still counts as a member of the group.
        let status = tokio::time::timeout(GRACE, self.child.wait()).await;
        while Instant::now() < deadline && (self.lives() || family.lives()) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.signal(Signal::KILL);
        family.kill();
        let status = match status {
            Ok(status) => status?,
            Err(_) => self.child.wait().await?,
        };
        self.group = None;
        Ok(status)
    }

    fn lives(&self) -> bool {
        self.group
            .is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    fn family(&self) -> Family {
        self.group.map(Family::of).unwrap_or_default()
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
        let family = self.family();
        self.signal(Signal::KILL);
        family.kill();
    }
}
