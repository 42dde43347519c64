//! The conversation with one helper, from the service's side: sends it the job, receives what it says of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use kodo_sandbox::provider::{CHUNK, Frames, OutgoingEntries, frame, json_frame};
use kodo_sandbox::{Captured, JobSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cgroup::Group;
use super::deadline::Deadline;
use super::output::{Output, broken_protocol};
use super::process::HelperProcess;
use super::shared::Shared;
use crate::sockets;
use crate::wire::{Kind, Spec};

/// How long the kernel may take to end the enclosure of a job that is over.
const CLEARED: Duration = Duration::from_secs(10);

/// How much of what a program printed last is told, in characters.
const SHOWN: usize = 400;

/// The program of a jailed service.
#[derive(Clone, Copy)]
pub(crate) struct ServiceProgram<'a> {
    /// The program on the machine, whose content the jail gets as a file of the name `name`.
    pub(crate) program: &'a Path,
    pub(crate) name: &'a str,
    /// The port in the jail's network on which this process listens.
    pub(crate) port: u16,
}

/// The conversation with one helper.
pub(crate) struct Channel {
    pub(crate) helper: HelperProcess,
    pub(crate) outgoing: VecDeque<u8>,
    /// What is sent after `outgoing`: what is in the job's folder.
    rest: OutgoingEntries<Kind>,
    /// Why not all of it could be sent.
    pub(crate) unsent: Option<io::Error>,
    frames: Frames,
    pub(crate) output: Output,
    /// Sockets that were received, in their order.
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) printed: [Captured; 2],
    /// The job printed more than it may.
    pub(crate) too_much: bool,
    /// The job's time, or that of an enclosure to come up, is over and the helper has not ended.
    pub(crate) late: bool,
    /// Nobody waits for the result any more.
    pub(crate) abandoned: bool,
    /// By when an enclosure has to have come up.
    up_by: Option<Instant>,
    pub(crate) began: Instant,
}

impl Channel {
    /// A channel to a helper that is ready, or to one that is started now.
    pub(crate) fn open(
        shared: &Shared,
        spec: &JobSpec,
        ready: Option<HelperProcess>,
    ) -> io::Result<Self> {
        let helper = match ready {
            Some(helper) => helper,
            None => HelperProcess::start(&shared.config.helper)?,
        };
        Ok(Self {
            helper,
            outgoing: VecDeque::new(),
            rest: OutgoingEntries::none(Kind::Entry, Kind::Data),
            unsent: None,
            frames: Frames::default(),
            output: Output::of(spec),
            sockets: Vec::new(),
            printed: [(); 2].map(|()| Captured::keeping(spec.limits.kept_bytes)),
            too_much: false,
            late: false,
            abandoned: false,
            began: Instant::now(),
            up_by: shared
                .enclosure
                .as_ref()
                .map(|it| Instant::now() + it.start),
        })
    }

    /// Queues the job for the helper, which does nothing until it has received it.
    pub(crate) fn send_job(
        &mut self,
        shared: &Shared,
        spec: &JobSpec,
        group: Option<&Group>,
        service: Option<ServiceProgram<'_>>,
    ) -> io::Result<()> {
        let mut rest = OutgoingEntries::of(spec, Kind::Entry, Kind::Data)?;
        if let Some(service) = service {
            let program = File::open(service.program)?;
            let size = program.metadata()?.len();
            rest.push_program(service.name, program, size);
        }
        let port = service.map(|it| it.port);
        self.outgoing = outgoing(shared, spec, group, port, rest.len())?.into();
        self.rest = rest;
        Ok(())
    }

    /// Sends and receives until the helper has ended, time is over, or nobody waits any more.
    pub(crate) fn run_job(&mut self, spec: &JobSpec, abandoned: impl AsFd) -> io::Result<()> {
        let mut deadline = Deadline::of(spec, Instant::now());
        let mut buffer = vec![0; CHUNK];
        loop {
            let up_by = self.up_by.filter(|_| self.output.started.is_none());
            let now = Instant::now();
            let left = deadline.left(now);
            let left = up_by.map_or(left, |it| left.min(it.saturating_duration_since(now)));
            if left.is_zero() {
                self.late = true;
                return Ok(());
            }
            let mut wanted = PollFlags::IN;
            if self.has_unsent() {
                wanted |= PollFlags::OUT;
            }
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.helper.control.as_fd(), wanted),
                PollFd::new(&abandoned, PollFlags::IN),
            ];
            let streams = [
                self.helper.stdout.as_ref().map(AsFd::as_fd),
                self.helper.stderr.as_ref().map(AsFd::as_fd),
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
            self.flush();
            if let Some(error) = self.unsent.take() {
                return Err(error);
            }
            self.read_streams(&mut buffer, spec.limits.output_bytes)?;
            let collected = self.output.collected;
            let over = self.receive(&mut buffer, spec)?;
            if self.output.collected > collected {
                deadline.put_off(Instant::now());
            }
            if !self.sockets.is_empty() {
                // Only a jailed service's init sends any.
                return Err(broken_protocol());
            }
            if over {
                // The jail's init has ended, and with it every writer: what is in the pipes is all there is.
                return self.read_streams(&mut buffer, u64::MAX);
            }
            if self.up_by.is_some() && self.output.exit.is_some() {
                // The job is dead, and what it printed is in the pipes. The rest would take its time to go.
                return self.clear_away(&mut buffer);
            }
        }
    }

    /// Ends an enclosure whose job is over, and waits until no process of it holds the channel.
    fn clear_away(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.read_streams(buffer, u64::MAX)?;
        let _ = self.helper.child.kill();
        let by = Instant::now() + CLEARED;
        loop {
            match sockets::receive(&self.helper.control, buffer, &mut self.sockets) {
                // Whatever it is, the last message came before.
                Ok(count) if count > 0 => self.sockets.clear(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = by.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(
                            ErrorKind::TimedOut,
                            "the processes around the job do not end",
                        ));
                    }
                    let mut fds = [PollFd::from_borrowed_fd(
                        self.helper.control.as_fd(),
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

    /// Sends as much as the socket takes. A helper that has refused the job does not read on; what it says is received
    /// all the same.
    pub(crate) fn flush(&mut self) {
        loop {
            if self.outgoing.is_empty() && !self.refill() {
                return;
            }
            let (first, _) = self.outgoing.as_slices();
            match self.helper.control.write(first) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.outgoing.clear();
                    self.rest = OutgoingEntries::none(Kind::Entry, Kind::Data);
                }
            }
        }
    }

    /// Moves the next frame of `rest` into `outgoing`. Returns whether there is any.
    fn refill(&mut self) -> bool {
        match self.rest.next_frame() {
            Ok(Some(frame)) => {
                self.outgoing.extend(frame);
                true
            }
            Ok(None) => false,
            // The helper would wait for the missing content in vain, and nothing runs before all of it is there.
            Err(error) => {
                self.rest = OutgoingEntries::none(Kind::Entry, Kind::Data);
                self.unsent = Some(error);
                false
            }
        }
    }

    /// Whether there is something left to send.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty() || !self.rest.is_empty()
    }

    /// Reads the job's two streams. If they are longer than `most` bytes together, tells the helper to end the job.
    pub(crate) fn read_streams(&mut self, buffer: &mut [u8], most: u64) -> io::Result<()> {
        let [out, err] = &mut self.printed;
        let open = drain(&mut self.helper.stdout, out, buffer)?;
        if !open {
            self.helper.stdout = None;
        }
        let open = drain(&mut self.helper.stderr, err, buffer)?;
        if !open {
            self.helper.stderr = None;
        }
        if !self.too_much && self.printed.iter().map(Captured::total).sum::<u64>() > most {
            self.too_much = true;
            self.outgoing.extend(frame(Kind::Stop, &[]));
            self.flush();
        }
        Ok(())
    }

    /// Receives frames. Returns true if the helper has closed the channel.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], spec: &JobSpec) -> io::Result<bool> {
        loop {
            let over = match sockets::receive(&self.helper.control, buffer, &mut self.sockets) {
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
            while let Some((kind, content)) = self.frames.take()? {
                self.output.take(kind, &content, spec)?;
            }
            if over {
                return Ok(true);
            }
        }
    }

    /// The last of what was printed, as one line; `None` if nothing was.
    pub(crate) fn last_words(&self) -> Option<String> {
        let printed: Vec<String> = self.printed.iter().map(Captured::text).collect();
        let printed = printed.join(" ");
        let words: Vec<&str> = printed.split_whitespace().collect();
        let line = words.join(" ");
        let skip = line.chars().count().saturating_sub(SHOWN);
        let tail: String = line.chars().skip(skip).collect();
        (!tail.is_empty()).then_some(tail)
    }
}

/// The specification, which is followed by so many entries.
fn outgoing(
    shared: &Shared,
    spec: &JobSpec,
    group: Option<&Group>,
    service_port: Option<u16>,
    entries: u64,
) -> io::Result<Vec<u8>> {
    let read_only: Vec<_> = shared
        .config
        .read_only
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let groups = group.map(Group::entry_files).unwrap_or_default();
    let (become_users, watch) = (shared.next_users(), group.is_none());
    // With an enclosure there are two to tell: the helper, which makes the jail around it, and the init inside.
    let mut around = Vec::new();
    let (groups, become_users, watch, read_only) = match &shared.enclosure {
        None => (groups, become_users, watch, read_only),
        Some(enclosure) => {
            around = json_frame(
                Kind::Spec,
                &Spec {
                    argv: Vec::new(),
                    env: Vec::new(),
                    cwd: String::new(),
                    entries: 0,
                    carried: None,
                    limits: spec.limits,
                    groups,
                    become_users,
                    watch,
                    tracing: false,
                    explain: false,
                    read_only,
                    service_port: None,
                    enclosed: Some(enclosure.message(spec.limits.processes)),
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
            entries,
            carried: spec.workspace.as_ref().map(|it| it.bounds),
            limits: spec.limits,
            groups,
            become_users,
            watch,
            tracing: shared.config.tracing,
            // gVisor has no such filters.
            explain: shared.config.explain && shared.enclosure.is_none(),
            read_only,
            service_port,
            enclosed: None,
        },
    )?;
    let mut bytes = around;
    bytes.extend(own);
    Ok(bytes)
}

/// Reads what is there. Returns false if the stream has ended.
fn drain(
    stream: &mut Option<impl Read>,
    into: &mut Captured,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let Some(stream) = stream else {
        return Ok(false);
    };
    // Bounded, so that a job that never stops printing does not keep the service from everything else.
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
