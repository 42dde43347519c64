//! Descendants of a process. A task runner gives its tasks process groups of their own, so ending the group that a
//! block began in does not end all that it has started.

use std::collections::HashMap;

use rustix::process::{Pid, Signal, kill_process};

/// Processes, each with the time of its start, so that a number that is used again is not taken for the same process.
#[derive(Debug, Default)]
pub(crate) struct Family(Vec<(Pid, u64)>);

impl Family {
    /// The descendants of a process as they are now. What has detached itself, as a database server does, is none.
    pub(crate) fn of(ancestor: Pid) -> Self {
        let mut children: HashMap<i32, Vec<(Pid, u64)>> = HashMap::new();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in entries {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .and_then(Pid::from_raw)
            else {
                continue;
            };
            if let Some((parent, started)) = stat(pid) {
                children.entry(parent).or_default().push((pid, started));
            }
        }
        let mut family = Vec::new();
        let mut parents = vec![ancestor.as_raw_nonzero().get()];
        while let Some(parent) = parents.pop() {
            for (pid, started) in children.remove(&parent).unwrap_or_default() {
                family.push((pid, started));
                parents.push(pid.as_raw_nonzero().get());
            }
        }
        Self(family)
    }

    /// Whether one of them is still there.
    pub(crate) fn lives(&self) -> bool {
        self.0.iter().any(|member| is_there(*member))
    }

    /// Kills those that are still there.
    pub(crate) fn kill(&self) {
        for member in self.0.iter().filter(|member| is_there(**member)) {
            // One that has just gone is what was wanted.
            let _ = kill_process(member.0, Signal::KILL);
        }
    }
}

fn is_there((pid, started): (Pid, u64)) -> bool {
    stat(pid).is_some_and(|(_, now)| now == started)
}

/// Parent and time of start, from `/proc/PID/stat`; none of a process that is over.
fn stat(pid: Pid) -> Option<(i32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The program's name stands in parentheses and may hold any character.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    Some((parent, fields.nth(17)?.parse().ok()?))
}
