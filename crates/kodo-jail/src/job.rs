//! One job, from the service's side: start the helper, feed it, read what comes, judge what came of it.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use kodo_sandbox::{Captured, Ended, JobResult, JobSpec, OutputFile, Reason, SandboxError, Usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use sha2::{Digest, Sha256};

use crate::cgroup::{CgroupPolicy, Group, Seen};
use crate::doors;
use crate::jail::Inner;
use crate::wire::{
    self, CHUNK, Cut, Exit, Fault, FileHeader, Frames, Kind, Spec, Started, from_json, json_frame,
};

/// How long building the jail, killing and collecting may take beyond the job's own time.
const GRACE: Duration = Duration::from_secs(30);

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
    match &inner.place {
        Ok(place) => place
            .make(&spec.limits)
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
}

#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) started: Option<Started>,
    pub(crate) fault: Option<Fault>,
    files: Vec<(FileHeader, Vec<u8>)>,
    pub(crate) exit: Option<Exit>,
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
            let left = deadline.saturating_duration_since(Instant::now());
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
            if self.listen(&mut buffer, spec)? {
                // The first process is dead, and with it every writer: what is in the pipes is all there is.
                return self.read_streams(&mut buffer, u64::MAX);
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
        if self.late {
            return Err(unavailable("the jail did not end in time, and was killed"));
        }
        let Some(mut exit) = self.heard.exit.take() else {
            return Err(if seen.killed_for_memory {
                SandboxError::Refused {
                    mechanism: "memory-limit".to_owned(),
                    reason: "the job's memory does not even hold the jail and its files".to_owned(),
                }
            } else {
                unavailable("the helper broke off without a word")
            });
        };
        let started = self
            .heard
            .started
            .ok_or_else(|| unavailable("the helper did not say what holds the job"))?;
        let ended = ended(&exit, seen, self.too_much);
        let skipped = exit.skipped();
        let [stdout, stderr] = self.printed;
        Ok(JobResult {
            provider: "process",
            ended,
            stdout,
            stderr,
            files: returned(self.heard.files),
            skipped,
            limits: spec.limits,
            enforced: enforced(inner, &started, by_group),
            usage: Usage {
                wall: Duration::from_millis(exit.wall_ms),
                cpu_user: Duration::from_micros(exit.user_us),
                cpu_system: Duration::from_micros(exit.system_us),
                max_rss_bytes: exit.max_rss,
                peak_memory_bytes: seen.peak_memory.or(exit.peak_memory),
                disk_bytes: exit.disk_bytes,
            },
        })
    }
}

/// The specification, then the content of each file.
fn outgoing(
    inner: &Inner,
    spec: &JobSpec,
    group: Option<&Group>,
    stays: Option<(Stays<'_>, u64)>,
) -> io::Result<Vec<u8>> {
    let read_only = inner
        .config
        .read_only
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let mut bytes = json_frame(
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
            groups: group.map(Group::doors).unwrap_or_default(),
            become_users: inner.next_users(),
            watch: group.is_none(),
            read_only,
            resident: stays.map(|(stays, _)| stays.port),
        },
    )?;
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

impl Heard {
    /// Takes a frame. The helper handles what a job left, so nothing it says is taken without bounds.
    fn take(&mut self, kind: Kind, content: Vec<u8>, spec: &JobSpec) -> io::Result<()> {
        let invalid = || io::Error::new(ErrorKind::InvalidData, "the helper broke the protocol");
        let limits = &spec.limits;
        match kind {
            Kind::Started => self.started = Some(from_json(&content)?),
            Kind::Fault => self.fault = Some(from_json(&content)?),
            Kind::Exit => self.exit = Some(from_json(&content)?),
            Kind::File => {
                let header: FileHeader = from_json(&content)?;
                let held: u64 = self.files.iter().map(|(header, _)| header.size).sum();
                let complete = self
                    .files
                    .last()
                    .is_none_or(|(header, content)| header.size == content.len() as u64);
                let many = self.files.len() as u64 >= limits.returned_files;
                let outside = Path::new(&header.name)
                    .components()
                    .any(|it| !matches!(it, Component::Normal(_)));
                if !complete
                    || many
                    || outside
                    || held.saturating_add(header.size) > limits.returned_bytes
                {
                    return Err(invalid());
                }
                self.files.push((header, Vec::new()));
            }
            Kind::Data => {
                let (header, held) = self.files.last_mut().ok_or_else(invalid)?;
                if (held.len() + content.len()) as u64 > header.size {
                    return Err(invalid());
                }
                held.extend_from_slice(&content);
            }
            // Its socket is among those that came.
            Kind::Door => {}
            Kind::Spec | Kind::Stop | Kind::Dial => return Err(invalid()),
        }
        Ok(())
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
        (Reason::Inodes, failed && exit.inodes_full),
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

/// The files as the port has them.
fn returned(files: Vec<(FileHeader, Vec<u8>)>) -> Vec<OutputFile> {
    files
        .into_iter()
        .map(|(header, content)| OutputFile {
            name: header.name,
            sha256: hex(&Sha256::digest(&content)),
            content,
            executable: header.executable,
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What held this job, in words.
fn enforced(inner: &Inner, started: &Started, by_group: bool) -> BTreeMap<&'static str, String> {
    let place = match (&inner.place, by_group) {
        (Ok(place), true) => place.describe(),
        _ => "watched every 10 ms and resource limits; no cgroup",
    };
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
