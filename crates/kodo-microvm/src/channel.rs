//! The connection to one machine, from the service's side.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Instant;

use kodo_sandbox::provider::{CHUNK, Frames, OutgoingEntries, from_json, json_frame};
use kodo_sandbox::{JobSpec, SandboxError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::outcome::Output;
use crate::plan::Plan;
use crate::wire::{Kind, Order, Ready};

/// How many bytes of a machine's console are kept, to be told if it does not come up.
const CONSOLE: usize = 2048;

/// How a job's conversation ended.
pub(crate) enum End {
    /// The guest has sent its last message.
    Said,
    /// The job's time and the grace are over.
    Late,
    /// Nobody waits for the result any more.
    Abandoned,
}

/// The connection to one machine: its emulator, its port and its console.
pub(crate) struct Channel {
    child: Child,
    port: UnixStream,
    console: UnixStream,
    printed: Vec<u8>,
    frames: Frames,
    buffer: Vec<u8>,
}

impl Channel {
    /// Starts the emulator.
    pub(crate) fn open(plan: &Plan) -> io::Result<Self> {
        let (port, their_port) = UnixStream::pair()?;
        let (console, their_console) = UnixStream::pair()?;
        let mut command = plan.launcher.command(&plan.start())?;
        command
            .stdin(Stdio::from(OwnedFd::from(their_port)))
            .stderr(Stdio::from(OwnedFd::from(their_console.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(their_console)));
        let child = command.spawn()?;
        // The command holds the other ends, which must not stay open in this process.
        drop(command);
        port.set_nonblocking(true)?;
        console.set_nonblocking(true)?;
        Ok(Self {
            child,
            port,
            console,
            printed: Vec::new(),
            frames: Frames::default(),
            buffer: vec![0; CHUNK],
        })
    }

    /// Waits until the port can be read, or written if `write`, or `other` can be read.
    fn wait(
        &mut self,
        other: impl AsFd,
        write: bool,
        deadline: Option<Instant>,
    ) -> io::Result<Woken> {
        let left = deadline.map(|it| it.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Woken::Late);
        }
        let patience = left.and_then(|left| Timespec::try_from(left).ok());
        let wanted = if write {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.port.as_fd(), wanted),
            PollFd::from_borrowed_fd(self.console.as_fd(), PollFlags::IN),
            PollFd::new(&other, PollFlags::IN),
        ];
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (console, other) = (!fds[1].revents().is_empty(), !fds[2].revents().is_empty());
        if console {
            self.read_console();
        }
        Ok(if other { Woken::Other } else { Woken::Port })
    }

    fn read_console(&mut self) {
        while let Ok(count) = self.console.read(&mut self.buffer) {
            if count == 0 {
                break;
            }
            self.printed.extend_from_slice(&self.buffer[..count]);
            let surplus = self.printed.len().saturating_sub(CONSOLE);
            self.printed.drain(..surplus);
        }
    }

    /// Reads what is there. The end of the port is an error: a machine says when it is done.
    fn read_port(&mut self) -> io::Result<()> {
        loop {
            match self.port.read(&mut self.buffer) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the machine ended",
                    ));
                }
                Ok(count) => self.frames.push(&self.buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the machine ended",
                    ));
                }
                Err(error) => return Err(error),
            }
            if self.frames.waiting() > 4 * CHUNK {
                return Ok(());
            }
        }
    }

    /// Waits until the guest has come up.
    pub(crate) fn come_up(&mut self, plan: &Plan, woken: &UnixStream) -> io::Result<Ready> {
        let deadline = Instant::now() + plan.boot;
        loop {
            match self.wait(woken, false, Some(deadline))? {
                Woken::Late => {
                    let what = format!("the guest did not come up within {:?}", plan.boot);
                    return Err(io::Error::new(ErrorKind::TimedOut, what));
                }
                Woken::Other => return Err(io::Error::other("nobody wants the machine any more")),
                Woken::Port => {}
            }
            self.read_port()?;
            match self.frames.take()? {
                Some((Kind::Ready, content)) => return from_json(&content),
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => {}
            }
        }
    }

    /// Waits until there is a request.
    pub(crate) fn idle(&mut self, woken: &UnixStream) -> io::Result<()> {
        loop {
            if let Woken::Other = self.wait(woken, false, None)? {
                let mut one = [0];
                let mut woken = woken;
                return woken.read_exact(&mut one);
            }
            // The guest sends nothing before its request, unless it is broken or has ended.
            self.read_port()?;
            if self.frames.waiting() > 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// Sends the job and receives its output.
    pub(crate) fn carry_out(
        &mut self,
        spec: &JobSpec,
        abandoned: impl AsFd,
        output: &mut Output,
        deadline: Instant,
    ) -> io::Result<End> {
        let mut rest = OutgoingEntries::of(spec, Kind::Entry, Kind::Data)?;
        let mut outgoing = json_frame(Kind::Order, &Order::of(spec, rest.len()))?;
        let mut sent = 0;
        loop {
            match self.wait(
                &abandoned,
                sent < outgoing.len() || !rest.is_empty(),
                Some(deadline),
            )? {
                Woken::Late => return Ok(End::Late),
                Woken::Other => return Ok(End::Abandoned),
                Woken::Port => {}
            }
            loop {
                if sent == outgoing.len() {
                    let Some(frame) = rest.next_frame()? else {
                        break;
                    };
                    (outgoing, sent) = (frame, 0);
                }
                match self.port.write(&outgoing[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // It has ended: what it sent before is still to be read.
                    Err(_) => {
                        rest = OutgoingEntries::none(Kind::Entry, Kind::Data);
                        sent = outgoing.len();
                    }
                }
            }
            let read = self.read_port();
            while let Some((kind, content)) = self.frames.take()? {
                if output.take(kind, &content)? {
                    return Ok(End::Said);
                }
            }
            read?;
        }
    }

    /// Kills the emulator and waits for its end.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it. Returns the error with what the console showed last.
    pub(crate) fn end(&mut self, error: &io::Error) -> SandboxError {
        self.stop();
        self.read_console();
        let printed = String::from_utf8_lossy(&self.printed);
        let printed: Vec<_> = printed
            .lines()
            .map(|line| line.trim_matches(|it: char| it.is_control() || it == ' '))
            .filter(|line| !line.is_empty())
            .collect();
        let last = printed[printed.len().saturating_sub(3)..].join("; ");
        let reason = if last.is_empty() {
            format!("the machine: {error}")
        } else {
            format!("the machine: {error}; it printed: {last}")
        };
        SandboxError::Unavailable { reason }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // In every case: no emulator outlives its thread.
        self.stop();
    }
}

enum Woken {
    Port,
    Other,
    Late,
}
