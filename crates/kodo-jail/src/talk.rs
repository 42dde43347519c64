//! The conversation with a helper: what it is told, and what is heard of the job.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use kodo_sandbox::{Captured, JobSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup::Group;
use crate::doors;
use crate::heard::{Heard, broken_protocol};
use crate::jail::Inner;
use crate::process::HelperProcess;
use crate::wire::{self, CHUNK, FileHeader, Frames, Kind, Spec, json_frame};

/// How long building the jail, killing and collecting may take beyond the job's own time.
const GRACE: Duration = Duration::from_secs(30);
/// How long the kernel may take to end what was around a job that is over.
const CLEARED: Duration = Duration::from_secs(10);

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
    pub(crate) helper: HelperProcess,
    pub(crate) outgoing: VecDeque<u8>,
    /// What is sent after that: the program that stays.
    rest: Option<File>,
    frames: Frames,
    pub(crate) heard: Heard,
    /// Sockets that came, in their order.
    pub(crate) doors: Vec<OwnedFd>,
    pub(crate) printed: [Captured; 2],
    pub(crate) too_much: bool,
    pub(crate) late: bool,
    pub(crate) abandoned: bool,
    /// By when an enclosure has to have come up.
    up_by: Option<Instant>,
    pub(crate) began: Instant,
}

impl Talk {
    /// With a helper that waits, or one that is started now.
    pub(crate) fn begin(
        inner: &Inner,
        spec: &JobSpec,
        ready: Option<HelperProcess>,
    ) -> io::Result<Self> {
        let helper = match ready {
            Some(helper) => helper,
            None => HelperProcess::start(&inner.config.helper)?,
        };
        Ok(Self {
            helper,
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
    pub(crate) fn hold(&mut self, spec: &JobSpec, waited_for: &OwnedFd) -> io::Result<()> {
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
                PollFd::from_borrowed_fd(self.helper.control.as_fd(), wanted),
                PollFd::new(waited_for, PollFlags::IN),
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
        let _ = self.helper.child.kill();
        let by = Instant::now() + CLEARED;
        loop {
            match doors::receive(&self.helper.control, buffer, &mut self.doors) {
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

    /// Sends what fits. A helper that has already refused does not read on; what it says is read all the same.
    pub(crate) fn feed(&mut self) {
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
            self.outgoing.extend(wire::frame(Kind::Stop, &[]));
            self.feed();
        }
        Ok(())
    }

    /// Reads frames. True where there will be no more.
    pub(crate) fn listen(&mut self, buffer: &mut [u8], spec: &JobSpec) -> io::Result<bool> {
        loop {
            let over = match doors::receive(&self.helper.control, buffer, &mut self.doors) {
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
