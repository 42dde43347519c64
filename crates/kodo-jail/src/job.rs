//! One job, from the service's side: start the helper, feed it, read what comes, judge what came of it.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use kodo_sandbox::{Captured, Ended, JobResult, JobSpec, Reason, SandboxError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::cgroup::{CgroupPolicy, Group, Seen};
use crate::doors;
use crate::enclosure::Enclosure;
use crate::heard::{Heard, broken_protocol, returned};
use crate::jail::Inner;
use crate::wire::{
    self, CHUNK, Cut, Exit, Fault, FileHeader, Frames, Kind, Spec, Started, json_frame,
};

/// How long building the jail, killing and collecting may take beyond the job's own time.
const GRACE: Duration = Duration::from_secs(30);
/// How long the kernel may take to end what was around a job that is over.
const CLEARED: Duration = Duration::from_secs(10);
/// How much of what an enclosure says is told where it does not come up, in characters.
const SHOWN: usize = 400;

/// Runs a job and waits for its end, or until nobody waits for it any more.
pub(crate) fn run(
    inner: &Inner,
    spec: &JobSpec,
    waited_for: &OwnedFd,
) -> Result<JobResult, SandboxError> {
    let mut talk = Talk::begin(inner, spec).map_err(broken("start the helper"))?;
    // While the helper comes to life. It does nothing before it has heard of its groups.
    let group = match group(inner, spec) {
        Ok(group) => group,
        Err(error) => {
            talk.end();
            return Err(error);
        }
    };
    let outcome = talk
        .tell(inner, spec, group.as_ref(), None)
        .and_then(|()| talk.hold(spec, waited_for));
    // At the usual end all of the job is dead by now: the helper ends after the first process of the jail, and
    // that only after the kernel has killed the rest. Where it is cut short here, that follows at once.
    talk.end();
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
        Err(_)
            if matches!(
                inner.config.cgroup,
                CgroupPolicy::Auto | CgroupPolicy::Never
            ) =>
        {
            Ok(None)
        }
        Err(reason) => Err(refused(reason.clone())),
    }
}

/// What makes a job one that stays.
#[derive(Clone, Copy)]
pub(crate) struct Stays<'a> {
    /// Its program on the machine, whose content is given to it as a file of this name.
    pub(crate) program: &'a Path,
    pub(crate) name: &'a str,
    /// Where the service listens in its network.
    pub(crate) port: u16,
}

/// The conversation with one helper.
pub(crate) struct Talk {
    child: Child,
    pub(crate) control: UnixStream,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
    pub(crate) outgoing: VecDeque<u8>,
    /// What is sent after that: the program that stays.
    rest: Option<File>,
    frames: Frames,
    pub(crate) heard: Heard,
    /// Sockets that came, in their order.
    pub(crate) doors: Vec<OwnedFd>,
    pub(crate) printed: [Captured; 2],
    too_much: bool,
    late: bool,
    abandoned: bool,
    /// By when an enclosure has to have come up.
    up_by: Option<Instant>,
    began: Instant,
}

impl Talk {
    pub(crate) fn begin(inner: &Inner, spec: &JobSpec) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let helper = &inner.config.helper;
        let mut command = Command::new(&helper.program);
        command
            .arg0("kodo-jail")
            .args(&helper.arguments)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !helper.keep_environment {
            command.env_clear();
        }
        let mut child = command.spawn()?;
        // It holds the other end of the conversation, which must not stay open here.
        drop(command);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        control.set_nonblocking(true)?;
        for stream in [
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            fcntl_setfl(stream, fcntl_getfl(stream)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            child,
            control,
            stdout,
            stderr,
            outgoing: VecDeque::new(),
            rest: None,
            frames: Frames::default(),
            heard: Heard::default(),
            doors: Vec::new(),
            printed: [(); 2].map(|()| Captured::keeping(spec.limits.kept_bytes)),
            too_much: false,
            late: false,
            abandoned: false,
            began: Instant::now(),
            up_by: inner.enclosure.as_ref().map(|it| Instant::now() + it.start),
        })
    }

    /// Says to the helper what it has to run. Until then it does nothing.
    pub(crate) fn tell(
        &mut self,
        inner: &Inner,
        spec: &JobSpec,
        group: Option<&Group>,
        resident: Option<Stays<'_>>,
    ) -> io::Result<()> {
        let rest = resident.map(|it| File::open(it.program)).transpose()?;
        let stays = match (resident, &rest) {
            (Some(resident), Some(file)) => Some((resident, file.metadata()?.len())),
            _ => None,
        };
        self.outgoing = outgoing(inner, spec, group, stays)?.into();
        self.rest = rest;
        Ok(())
    }

    /// Feeds the helper and reads what comes, until it says nothing more.
    fn hold(&mut self, spec: &JobSpec, waited_for: &OwnedFd) -> io::Result<()> {
        let deadline = Instant::now() + spec.limits.wall + GRACE;
        let mut buffer = vec![0; CHUNK];
        loop {
            let up_by = self.up_by.filter(|_| self.heard.started.is_none());
            let left = up_by
                .map_or(deadline, |it| it.min(deadline))
                .saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.late = true;
                return Ok(());
            }
            let mut wanted = PollFlags::IN;
            if self.has_more() {
                wanted |= PollFlags::OUT;
            }
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.control.as_fd(), wanted),
                PollFd::new(waited_for, PollFlags::IN),
            ];
            let streams = [
                self.stdout.as_ref().map(AsFd::as_fd),
                self.stderr.as_ref().map(AsFd::as_fd),
            ];
            for stream in streams.into_iter().flatten() {
                fds.push(PollFd::from_borrowed_fd(stream, PollFlags::IN));
            }
            let patience = Timespec::try_from(left).ok();
            match poll(&mut fds, patience.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let abandoned = !fds[1].revents().is_empty();
            drop(fds);
            if abandoned {
                self.abandoned = true;
                return Ok(());
            }
            self.feed();
            self.read_streams(&mut buffer, spec.limits.output_bytes)?;
            let over = self.listen(&mut buffer, spec)?;
            if !self.doors.is_empty() {
                // Only a program that stays hands out any.
                return Err(broken_protocol());
            }
            if over {
                // The first process is dead, and with it every writer: what is in the pipes is all there is.
                return self.read_streams(&mut buffer, u64::MAX);
            }
            if self.up_by.is_some() && self.heard.exit.is_some() {
                // The job is dead, and what it printed is in the pipes. The rest would take its time to go.
                return self.clear_away(&mut buffer);
            }
        }
    }

    /// Ends an enclosure whose job is over, and waits until nobody of it is there who could say anything.
    fn clear_away(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.read_streams(buffer, u64::MAX)?;
        let _ = self.child.kill();
        let by = Instant::now() + CLEARED;
        loop {
            match doors::receive(&self.control, buffer, &mut self.doors) {
                // Whatever it is: the last word was spoken before.
                Ok(count) if count > 0 => self.doors.clear(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = by.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(
                            ErrorKind::TimedOut,
                            "what was around the job does not go",
                        ));
                    }
                    let mut fds = [PollFd::from_borrowed_fd(
                        self.control.as_fd(),
                        PollFlags::IN,
                    )];
                    match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// Sends what fits. A helper that has already refused does not read on; what it says is read all the same.
    pub(crate) fn feed(&mut self) {
        loop {
            if self.outgoing.is_empty() && !self.refill() {
                return;
            }
            let (first, _) = self.outgoing.as_slices();
            match self.control.write(first) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.outgoing.clear();
                    self.rest = None;
                }
            }
        }
    }

    /// The next piece of what is still to be sent, if there is any.
    fn refill(&mut self) -> bool {
        let Some(file) = &mut self.rest else {
            return false;
        };
        let mut piece = vec![0; CHUNK];
        match file.read(&mut piece) {
            Ok(count) if count > 0 => {
                self.outgoing
                    .extend(wire::frame(Kind::Data, &piece[..count]));
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            // A file that became shorter, or unreadable: the helper waits for the rest in vain, and is ended.
            _ => {
                self.rest = None;
                false
            }
        }
    }

    /// Whether there is something to be sent.
    pub(crate) fn has_more(&self) -> bool {
        !self.outgoing.is_empty() || self.rest.is_some()
    }

    pub(crate) fn read_streams(&mut self, buffer: &mut [u8], most: u64) -> io::Result<()> {
        let [out, err] = &mut self.printed;
        let open = drain(&mut self.stdout, out, buffer)?;
        if !open {
            self.stdout = None;
        }
        let open = drain(&mut self.stderr, err, buffer)?;
        if !open {
            self.stderr = None;
        }
        if !self.too_much && self.printed.iter().map(Captured::total).sum::<u64>() > most {
            self.too_much = true;
            self.outgoing.extend(wire::frame(Kind::Stop, &[]));
            self.feed();
        }
        Ok(())
    }

    /// Reads frames. True where there will be no more.
    pub(crate) fn listen(&mut self, buffer: &mut [u8], spec: &JobSpec) -> io::Result<bool> {
        loop {
            let over = match doors::receive(&self.control, buffer, &mut self.doors) {
                Ok(0) => true,
                Ok(count) => {
                    self.frames.push(&buffer[..count]);
                    false
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => false,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
                Err(error) => return Err(error),
            };
            while let Some((kind, content)) = self.frames.next()? {
                self.heard.take(kind, content, spec)?;
            }
            if over {
                return Ok(true);
            }
        }
    }

    pub(crate) fn end(&mut self) {
        // The usual end has come by itself; killing what is dead is nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

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

/// The specification, then the content of each file.
fn outgoing(
    inner: &Inner,
    spec: &JobSpec,
    group: Option<&Group>,
    stays: Option<(Stays<'_>, u64)>,
) -> io::Result<Vec<u8>> {
    let read_only: Vec<_> = inner
        .config
        .read_only
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let groups = group.map(Group::doors).unwrap_or_default();
    let (become_users, watch) = (inner.next_users(), group.is_none());
    // Who makes the jail and who is the first process are one, or two that are told each its own.
    let mut around = Vec::new();
    let (groups, become_users, watch, read_only) = match &inner.enclosure {
        None => (groups, become_users, watch, read_only),
        Some(enclosure) => {
            around = json_frame(
                Kind::Spec,
                &Spec {
                    argv: Vec::new(),
                    env: Vec::new(),
                    cwd: String::new(),
                    files: Vec::new(),
                    limits: spec.limits,
                    groups,
                    become_users,
                    watch,
                    read_only,
                    resident: None,
                    enclosed: Some(enclosure.told(spec.limits.processes)),
                },
            )?;
            (Vec::new(), Vec::new(), true, Vec::new())
        }
    };
    let own = json_frame(
        Kind::Spec,
        &Spec {
            argv: spec.argv.clone(),
            env: spec.env.clone().into_iter().collect(),
            cwd: spec.cwd.clone(),
            files: spec
                .files
                .iter()
                .map(|file| FileHeader {
                    name: file.name.clone(),
                    size: file.content.len() as u64,
                    executable: file.executable,
                })
                .chain(stays.map(|(stays, size)| FileHeader {
                    name: stays.name.to_owned(),
                    size,
                    executable: true,
                }))
                .collect(),
            limits: spec.limits,
            groups,
            become_users,
            watch,
            read_only,
            resident: stays.map(|(stays, _)| stays.port),
            enclosed: None,
        },
    )?;
    let mut bytes = around;
    bytes.extend(own);
    for file in &spec.files {
        for chunk in file.content.chunks(CHUNK) {
            bytes.extend(wire::frame(Kind::Data, chunk));
        }
    }
    Ok(bytes)
}

/// Reads what there is. False where the stream has ended.
fn drain(
    stream: &mut Option<impl Read>,
    into: &mut Captured,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let Some(stream) = stream else {
        return Ok(false);
    };
    // Bounded, so that a job that never stops printing does not keep us from hearing of anything else.
    for _ in 0..64 {
        match stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => into.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
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
