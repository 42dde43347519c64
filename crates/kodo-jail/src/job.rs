//! One job, from the service's side: give it to a helper, wait for its end, judge what came of it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use kodo_sandbox::{Captured, Ended, JobResult, JobSpec, Reason, SandboxError};

use crate::cgroup::{CgroupPolicy, Group, Seen};
use crate::enclosure::Enclosure;
use crate::heard::returned;
use crate::jail::Inner;
use crate::process::HelperProcess;
use crate::talk::Talk;
use crate::wire::{Cut, Exit, Fault, Started};

/// How much of what an enclosure says is told where it does not come up, in characters.
const SHOWN: usize = 400;

/// Runs a job and waits for its end, or until nobody waits for it any more. Takes the helper that is ready, if there is
/// one that still waits.
pub(crate) fn run(
    inner: &Inner,
    spec: &JobSpec,
    waited_for: &OwnedFd,
    ready: Option<HelperProcess>,
) -> Result<JobResult, SandboxError> {
    let ready = ready.and_then(|mut it| it.waits().then_some(it));
    let mut talk = Talk::begin(inner, spec, ready).map_err(broken("start the helper"))?;
    // While the helper comes to life. It does nothing before it has heard of its groups.
    let group = match group(inner, spec) {
        Ok(group) => group,
        Err(error) => {
            talk.helper.end();
            return Err(error);
        }
    };
    let outcome = talk
        .tell(inner, spec, group.as_ref(), None)
        .and_then(|()| talk.hold(spec, waited_for));
    // At the usual end all of the job is dead by now: the helper ends after the first process of the jail, and
    // that only after the kernel has killed the rest. Where it is cut short here, that follows at once.
    talk.helper.end();
    outcome.map_err(broken("talk with the helper"))?;
    let seen = group.as_ref().map(Group::seen).unwrap_or_default();
    let by_group = group.is_some();
    drop(group);
    talk.judge(inner, spec, by_group, seen)
}

pub(crate) fn broken(what: &str) -> impl Fn(io::Error) -> SandboxError + '_ {
    move |error| SandboxError::Unavailable {
        reason: format!("{what}: {error}"),
    }
}

pub(crate) fn group(inner: &Inner, spec: &JobSpec) -> Result<Option<Group>, SandboxError> {
    let refused = |reason: String| SandboxError::Refused {
        mechanism: "cgroup".to_owned(),
        reason,
    };
    let mut limits = spec.limits;
    if let Some(enclosure) = &inner.enclosure {
        // A bound around all of it, should what keeps the job's own in there not hold.
        limits.memory_bytes = limits.memory_bytes.saturating_add(enclosure.own_memory);
        limits.processes = Enclosure::processes(limits.processes);
    }
    match &inner.place {
        Ok(place) => place
            .make(&limits)
            .map(Some)
            .map_err(|error| refused(format!("no group can be made: {error}"))),
        Err(reason) => match inner.config.cgroup {
            CgroupPolicy::Auto => Ok(None),
            #[cfg(feature = "weaken")]
            CgroupPolicy::Never => Ok(None),
            CgroupPolicy::Require | CgroupPolicy::Below(_) => Err(refused(reason.clone())),
        },
    }
}

impl Talk {
    fn judge(
        mut self,
        inner: &Inner,
        spec: &JobSpec,
        by_group: bool,
        seen: Seen,
    ) -> Result<JobResult, SandboxError> {
        let unavailable = |reason: &str| SandboxError::Unavailable {
            reason: reason.to_owned(),
        };
        if self.abandoned {
            return Err(unavailable(
                "nobody waits for the job any more, and it was ended",
            ));
        }
        if let Some(Fault { mechanism, reason }) = self.heard.fault {
            return Err(match mechanism.as_str() {
                "working-folder" | "input-file" => SandboxError::JobInvalid {
                    reason: format!("{mechanism}: {reason}"),
                },
                _ => SandboxError::Refused { mechanism, reason },
            });
        }
        if let Some(enclosure) = &inner.enclosure
            && self.heard.started.is_none()
            && !seen.killed_for_memory
        {
            return Err(self.not_up(enclosure));
        }
        if self.late && inner.enclosure.is_none() {
            return Err(unavailable("the jail did not end in time, and was killed"));
        }
        let ended_for = match (inner.enclosure.is_some(), self.late) {
            (true, true) => Some(Reason::Timeout),
            // The machine's bound around all of it ended the kernel in there with the job.
            (true, false) if seen.killed_for_memory => Some(Reason::Memory),
            _ => None,
        };
        let mut exit = match (self.heard.exit.take(), ended_for, &self.heard.started) {
            (Some(exit), _, _) => exit,
            (None, Some(reason), Some(_)) => {
                // Its files went with it, and half of one is none.
                self.heard.files.clear();
                Exit::cut_off(reason, self.began.elapsed())
            }
            _ => {
                return Err(if seen.killed_for_memory {
                    SandboxError::Refused {
                        mechanism: "memory-limit".to_owned(),
                        reason: "the job's memory does not even hold the jail and its files"
                            .to_owned(),
                    }
                } else {
                    unavailable("the helper broke off without a word")
                });
            }
        };
        if !self.heard.complete() {
            return Err(unavailable("the helper broke off in the middle of a file"));
        }
        let started = self
            .heard
            .started
            .ok_or_else(|| unavailable("the helper did not say what holds the job"))?;
        let ended = ended(&exit, seen, self.too_much);
        // What a group around an enclosure saw is more than the job's.
        let peak = seen.peak_memory.filter(|_| inner.enclosure.is_none());
        let (skipped, usage) = (exit.skipped(), exit.usage(peak));
        let [stdout, stderr] = self.printed;
        Ok(JobResult {
            provider: inner.provider(),
            ended,
            stdout,
            stderr,
            files: returned(self.heard.files),
            skipped,
            limits: spec.limits,
            enforced: enforced(inner, &started, by_group),
            usage,
        })
    }

    /// Why an enclosure did not come up, with what it said itself.
    fn not_up(&self, enclosure: &Enclosure) -> SandboxError {
        let mut reason = if self.late {
            format!("it did not come up within {:?}", enclosure.start)
        } else {
            "it ended before the job began".to_owned()
        };
        let said: Vec<_> = self.printed.iter().map(Captured::text).collect();
        let said: Vec<_> = said.iter().flat_map(|it| it.split_whitespace()).collect();
        let said = said.join(" ");
        if !said.is_empty() {
            let skip = said.chars().count().saturating_sub(SHOWN);
            reason.push_str("; the last that it said: ");
            reason.extend(said.chars().skip(skip));
        }
        SandboxError::Refused {
            mechanism: enclosure.mechanism.to_owned(),
            reason,
        }
    }
}

/// What ended the job. Where several things are true, what came from outside of it counts first.
fn ended(exit: &Exit, seen: Seen, too_much: bool) -> Ended {
    let signal = exit.status & 0x7f;
    let status = if signal == 0 {
        (exit.status >> 8) & 0xff
    } else {
        128 + signal
    };
    let failed = status != 0;
    let reasons = [
        (Reason::Output, too_much || exit.cut == Some(Cut::Stopped)),
        (Reason::Timeout, exit.cut == Some(Cut::Timeout)),
        (
            Reason::Memory,
            exit.cut == Some(Cut::Memory) || seen.killed_for_memory,
        ),
        (
            Reason::Disk,
            failed && (exit.disk_full || signal == libc::SIGXFSZ),
        ),
        (
            Reason::Inodes,
            exit.cut == Some(Cut::Inodes) || (failed && exit.inodes_full),
        ),
        (
            Reason::Processes,
            failed && (seen.refused_a_process || exit.processes_full),
        ),
        (Reason::Returned, exit.returned_full),
    ];
    match reasons.into_iter().find(|(_, holds)| *holds) {
        Some((reason, _)) => Ended::Stopped { reason, status },
        None if signal != 0 => Ended::Signaled(signal),
        None => Ended::Exited(status),
    }
}

/// What held this job, in words.
fn enforced(inner: &Inner, started: &Started, by_group: bool) -> BTreeMap<&'static str, String> {
    let place = match (&inner.place, by_group) {
        (Ok(place), true) => place.describe(),
        _ => "watched every 10 ms and resource limits; no cgroup",
    };
    if let Some(enclosure) = &inner.enclosure {
        return enclosure.enforced(by_group.then_some(place));
    }
    BTreeMap::from([
        (
            "user",
            format!("{} of the machine, without capabilities", started.user),
        ),
        (
            "namespaces",
            "user, mount, pid, net, ipc, uts, cgroup".to_owned(),
        ),
        ("network", "none but a loopback of its own".to_owned()),
        ("landlock", format!("version {}", started.landlock)),
        ("seccomp", "list of allowed system calls".to_owned()),
        (
            "proc",
            if started.proc {
                "own processes only".to_owned()
            } else {
                "none: this machine allows the jail none".to_owned()
            },
        ),
        ("memory", place.to_owned()),
        ("processes", place.to_owned()),
        ("disk", "tmpfs".to_owned()),
        ("inodes", "tmpfs".to_owned()),
        ("wall", "the first process of the jail".to_owned()),
        ("output", "the service".to_owned()),
    ])
}
