//! One job, from the service's side: sends it to a helper, waits for its end, and makes its result.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use kodo_sandbox::provider::ReceivedEntries;
use kodo_sandbox::{Ended, JobResult, JobSpec, Reason, SandboxError};

use super::cgroup::{CgroupPolicy, Group, NoCgroups, Observed};
use super::channel::Channel;
use super::enclosure::Enclosure;
use super::process::HelperProcess;
use super::shared::Shared;
use crate::shortage::{error_passes, passes};
use crate::wire::{Cut, Exit, Fault, Proc, Started};

/// The most characters that are taken of what a job was refused.
const MAX_REFUSED: usize = 16 * 1024;

/// Runs a job and waits for its end, or until `abandoned` becomes readable. Uses the helper that is ready, if there is one
/// and it is still alive.
pub(crate) fn run(
    shared: &Shared,
    spec: &JobSpec,
    abandoned: impl AsFd,
    ready: Option<HelperProcess>,
) -> Result<JobResult, SandboxError> {
    let ready = ready.and_then(|mut it| it.is_alive().then_some(it));
    let mut channel = Channel::open(shared, spec, ready).map_err(no_helper)?;
    // While the helper comes up. It does nothing before it has been told of its cgroups.
    let group = match group(shared, spec) {
        Ok(group) => group,
        Err(error) => {
            channel.helper.end();
            return Err(error);
        }
    };
    let sent = channel.send_job(shared, spec, group.as_ref(), None);
    // Trying again would not make it smaller.
    if let Err(error) = &sent
        && error.kind() == io::ErrorKind::InvalidInput
    {
        channel.helper.end();
        return Err(SandboxError::Refused {
            mechanism: "specification".to_owned(),
            reason: error.to_string(),
        });
    }
    let outcome = sent.and_then(|()| channel.run_job(spec, abandoned));
    // Usually all of the job has ended by now: the helper ends after the jail's init, and that only after the kernel has
    // killed the rest. If the helper is killed here, the others are at once.
    channel.helper.end();
    outcome.map_err(broken("connection to the helper"))?;
    let observed = group.as_ref().map(Group::observed).unwrap_or_default();
    let by_group = group.as_ref().map(Group::describe);
    drop(group);
    channel.result(shared, spec, by_group, observed)
}

/// Why no helper could be started.
pub(crate) fn no_helper(error: io::Error) -> SandboxError {
    short_or("start the helper", error, |reason| SandboxError::Refused {
        mechanism: "own-program".to_owned(),
        reason,
    })
}

/// A shortage if the kernel's error is one, otherwise another error.
pub(crate) fn short_or(
    mechanism: &str,
    error: io::Error,
    other: impl Fn(String) -> SandboxError,
) -> SandboxError {
    let reason = error.to_string();
    match error_passes(&error) {
        true => SandboxError::Shortage {
            mechanism: mechanism.to_owned(),
            reason,
        },
        false => other(format!("{mechanism}: {reason}")),
    }
}

/// What a fault of the helper means: a shortage if the kernel's number says so, otherwise that something is not allowed.
pub(crate) fn refused(fault: Fault) -> SandboxError {
    let Fault {
        mechanism,
        reason,
        errno,
    } = fault;
    match mechanism.as_str() {
        _ if errno.is_some_and(passes) => SandboxError::Shortage { mechanism, reason },
        "working-folder" | "input-file" => SandboxError::JobInvalid {
            reason: format!("{mechanism}: {reason}"),
        },
        _ => SandboxError::Refused { mechanism, reason },
    }
}

pub(crate) fn broken(what: &str) -> impl Fn(io::Error) -> SandboxError + '_ {
    move |error| short_or(what, error, |reason| SandboxError::Unavailable { reason })
}

/// Makes the job's cgroup; `None` if the configuration does without one.
pub(crate) fn group(shared: &Shared, spec: &JobSpec) -> Result<Option<Group>, SandboxError> {
    let refused = |reason: String| SandboxError::Refused {
        mechanism: "cgroup".to_owned(),
        reason,
    };
    let mut limits = spec.limits;
    if let Some(enclosure) = &shared.enclosure {
        // A limit around all of it, in case that the job's own inside does not hold.
        limits.memory_bytes = limits.memory_bytes.saturating_add(enclosure.own_memory);
        limits.processes = Enclosure::processes(limits.processes);
    }
    match shared.cgroups() {
        Ok(cgroups) => cgroups
            .make(&limits)
            .map(Some)
            .map_err(|error| short_or("cgroup", error, refused)),
        Err(NoCgroups {
            reason,
            passes: true,
        }) => Err(SandboxError::Shortage {
            mechanism: "cgroup".to_owned(),
            reason,
        }),
        Err(NoCgroups { reason, .. }) => match shared.config.cgroup {
            CgroupPolicy::Auto => Ok(None),
            #[cfg(feature = "weaken")]
            CgroupPolicy::Never => Ok(None),
            CgroupPolicy::Require | CgroupPolicy::Below(_) => Err(refused(reason)),
        },
    }
}

impl Channel {
    /// The result of the job, from all that was received and observed.
    fn result(
        mut self,
        shared: &Shared,
        spec: &JobSpec,
        by_group: Option<&'static str>,
        observed: Observed,
    ) -> Result<JobResult, SandboxError> {
        let unavailable = |reason: &str| SandboxError::Unavailable {
            reason: reason.to_owned(),
        };
        if self.abandoned {
            return Err(unavailable(
                "nobody waits for the job any more, and it was ended",
            ));
        }
        if let Some(fault) = self.output.fault {
            return Err(refused(fault));
        }
        if let Some(enclosure) = &shared.enclosure
            && self.output.started.is_none()
            && !observed.killed_for_memory
        {
            return Err(self.not_up(enclosure));
        }
        if self.late && shared.enclosure.is_none() {
            return Err(unavailable("the jail did not end in time, and was killed"));
        }
        let ended_for = match (shared.enclosure.is_some(), self.late) {
            (true, true) => Some(Reason::Timeout),
            // The limit around all of it ended the kernel inside together with the job.
            (true, false) if observed.killed_for_memory => Some(Reason::Memory),
            _ => None,
        };
        let mut exit = match (self.output.exit.take(), ended_for, &self.output.started) {
            (Some(exit), _, _) => exit,
            (None, Some(reason), Some(_)) => {
                // The job was killed: partially received files are discarded.
                self.output.entries = ReceivedEntries::default();
                Exit::cut_off(reason, self.began.elapsed())
            }
            _ => {
                return Err(if observed.killed_for_memory {
                    SandboxError::Refused {
                        mechanism: "memory-limit".to_owned(),
                        reason: "the job's memory limit is too low even for the jail and the job's files"
                            .to_owned(),
                    }
                } else {
                    unavailable("the helper ended without saying why")
                });
            }
        };
        if !self.output.entries.is_complete() {
            return Err(unavailable("the helper ended in the middle of a file"));
        }
        let started = self
            .output
            .started
            .ok_or_else(|| unavailable("the helper did not say what confines the job"))?;
        // Of a job that was killed together with its kernel, nothing of its folder has come: that is no tree of it.
        let (workspace, fault) = match self.output.entries.tree() {
            Some(Ok(tree)) if exit.not_carried.is_none() => (Some(tree), None),
            Some(Err(fault)) => (None, Some(fault)),
            _ => (None, None),
        };
        let told = exit.not_carried().or(fault);
        let ended = ended(&exit, observed, self.too_much, told.is_some());
        // The cgroup around an enclosure counts more than the job's memory.
        let peak = observed.peak_memory.filter(|_| shared.enclosure.is_none());
        let mut enforced = enforced(shared, &started, by_group);
        if let Some(refused) = exit.refused.take() {
            let bounded: String = refused.join("\n").chars().take(MAX_REFUSED).collect();
            enforced.insert("refused", bounded);
        }
        let (skipped, usage) = (exit.skipped(), exit.usage(peak));
        let [stdout, stderr] = self.printed;
        Ok(JobResult {
            provider: shared.provider(),
            ended,
            stdout,
            stderr,
            files: self.output.entries.into_files(),
            workspace,
            // Of a limit of the job itself there is more to be told than of what it left.
            told: told.filter(|_| {
                matches!(
                    ended,
                    Ended::Stopped {
                        reason: Reason::Workspace,
                        ..
                    }
                )
            }),
            skipped,
            limits: spec.limits,
            enforced,
            usage,
        })
    }

    /// Why an enclosure did not come up, with what it printed.
    fn not_up(&self, enclosure: &Enclosure) -> SandboxError {
        let mut reason = if self.late {
            format!("it did not come up within {:?}", enclosure.start)
        } else {
            "it ended before the job began".to_owned()
        };
        if let Some(words) = self.last_words() {
            reason.push_str("; the last that it said: ");
            reason.push_str(&words);
        }
        SandboxError::Refused {
            mechanism: enclosure.mechanism.to_owned(),
            reason,
        }
    }
}

/// What ended the job. If several reasons hold, the one from outside of the job counts.
fn ended(exit: &Exit, observed: Observed, too_much: bool, not_carried: bool) -> Ended {
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
            exit.cut == Some(Cut::Memory) || observed.killed_for_memory,
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
            failed && (observed.refused_a_process || exit.processes_full),
        ),
        (Reason::Returned, exit.returned_full),
        (Reason::Workspace, not_carried),
    ];
    match reasons.into_iter().find(|(_, holds)| *holds) {
        Some((reason, _)) => Ended::Stopped { reason, status },
        None if signal != 0 => Ended::Signaled(signal),
        None => Ended::Exited(status),
    }
}

/// What confined this job, in words.
fn enforced(
    shared: &Shared,
    started: &Started,
    by_group: Option<&'static str>,
) -> BTreeMap<&'static str, String> {
    if let Some(enclosure) = &shared.enclosure {
        return enclosure.enforced(by_group);
    }
    let place = by_group.unwrap_or("watched every 10 ms and resource limits; no cgroup");
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
            match started.proc {
                Proc::Whole => "own processes, and what is true for the job",
                Proc::Processes => "own processes only: this machine allows the jail no more",
                Proc::None => "none: this machine allows the jail none",
            }
            .to_owned(),
        ),
        (
            "terminals",
            if started.terminals {
                "of its own".to_owned()
            } else {
                "none: this machine allows the jail none".to_owned()
            },
        ),
        (
            "openFiles",
            format!("resource limit, {}", started.open_files),
        ),
        ("memory", place.to_owned()),
        ("processes", place.to_owned()),
        ("disk", "tmpfs".to_owned()),
        ("inodes", "tmpfs".to_owned()),
        ("wall", "the first process of the jail".to_owned()),
        ("output", "the service".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_is_short_of_is_no_refusal_wherever_it_says_so() {
        let numbers = [
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOSPC,
            libc::EDQUOT,
            libc::EUSERS,
            libc::EINTR,
        ];
        for number in numbers {
            let error = || io::Error::from_raw_os_error(number);
            for mechanism in [
                "fork",
                "user-namespace",
                "mount-namespace",
                "seccomp",
                "cgroup",
            ] {
                let told = refused(Fault::because(mechanism, "x", error()));
                assert_eq!(told.code(), "sandbox_shortage", "{told}");
                assert!(told.is_transient());
                assert!(told.to_string().contains(mechanism), "{told}");
            }
            assert_eq!(no_helper(error()).code(), "sandbox_shortage");
            assert_eq!(broken("x")(error()).code(), "sandbox_shortage");
        }
        for number in [
            libc::EPERM,
            libc::EACCES,
            libc::EINVAL,
            libc::ENOSYS,
            libc::ENOENT,
        ] {
            let error = || io::Error::from_raw_os_error(number);
            let told = refused(Fault::because("mount-namespace", "x", error()));
            assert_eq!(told.code(), "sandbox_refused", "{told}");
            assert!(!told.is_transient());
            assert_eq!(no_helper(error()).code(), "sandbox_refused");
        }
    }
}
