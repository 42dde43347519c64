//! A helper as a child process of the service, from its start to its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::shared::Helper;

/// A helper, which does nothing until it has received a job. It dies with the thread that started it.
#[derive(Debug)]
pub(crate) struct HelperProcess {
    pub(crate) child: Child,
    pub(crate) control: UnixStream,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl HelperProcess {
    pub(crate) fn start(helper: &Helper) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&helper.program);
        command
            .arg0("kodo-jail")
            .args(&helper.arguments)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[cfg(feature = "weaken")]
        let keep_environment = helper.keep_environment;
        #[cfg(not(feature = "weaken"))]
        let keep_environment = false;
        if !keep_environment {
            command.env_clear();
        }
        let mut child = command.spawn()?;
        // The command holds the other end of the channel, which must not stay open in this process.
        drop(command);
        let mut helper = Self {
            control,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
        };
        match helper.do_not_block() {
            Ok(()) => Ok(helper),
            Err(error) => {
                helper.end();
                Err(error)
            }
        }
    }

    fn do_not_block(&self) -> io::Result<()> {
        self.control.set_nonblocking(true)?;
        let streams = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        for stream in streams.into_iter().flatten() {
            fcntl_setfl(stream, fcntl_getfl(stream)? | OFlags::NONBLOCK)?;
        }
        Ok(())
    }

    /// Whether it is still alive.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it, and waits until it is gone.
    pub(crate) fn end(&mut self) {
        // Killing a process that has ended is an error that changes nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
