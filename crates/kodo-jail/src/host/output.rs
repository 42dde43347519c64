//! What a helper has sent about its job, checked against what the job may do.

use std::io::{self, ErrorKind};

use kodo_sandbox::JobSpec;
use kodo_sandbox::provider::{ReceivedEntries, from_json};

use crate::wire::{Exit, Fault, Kind, Started};

/// What has been received so far.
pub(crate) struct Output {
    pub(crate) started: Option<Started>,
    pub(crate) fault: Option<Fault>,
    pub(crate) entries: ReceivedEntries,
    /// How many messages of what the job left there were: none before its program has ended.
    pub(crate) collected: u64,
    pub(crate) exit: Option<Exit>,
}

/// The error for a message that the helper must not send.
pub(crate) fn broken_protocol() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the helper broke the protocol")
}

impl Output {
    /// Nothing yet, of this job.
    pub(crate) fn of(spec: &JobSpec) -> Self {
        Self {
            started: None,
            fault: None,
            entries: ReceivedEntries::of(spec),
            collected: 0,
            exit: None,
        }
    }

    /// Takes a frame. The helper handles what a job left, so nothing that it sends is taken without limits.
    ///
    /// # Errors
    /// If the protocol does not allow the message here, or the message exceeds a limit of the job.
    pub(crate) fn take(&mut self, kind: Kind, content: &[u8], spec: &JobSpec) -> io::Result<()> {
        if self.exit.is_some() || self.fault.is_some() {
            // Either is the last message.
            return Err(broken_protocol());
        }
        self.collected += u64::from(matches!(kind, Kind::Entry | Kind::Data));
        match kind {
            Kind::Started => self.started = Some(from_json(content)?),
            Kind::Fault => self.fault = Some(from_json(content)?),
            Kind::Exit if self.entries.is_complete() => self.exit = Some(from_json(content)?),
            Kind::Entry => {
                let begun = self.entries.begin(from_json(content)?, &spec.limits);
                begun.map_err(unless_of_the_disk)?;
            }
            Kind::Data => self.entries.append(content).map_err(unless_of_the_disk)?,
            // The socket itself came beside the frame.
            Kind::Socket => {}
            Kind::Exit | Kind::Spec | Kind::Stop | Kind::NewSocket => {
                return Err(broken_protocol());
            }
        }
        Ok(())
    }
}

/// An error of this machine's disk stays what it is.
fn unless_of_the_disk(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::InvalidData => broken_protocol(),
        _ => error,
    }
}
