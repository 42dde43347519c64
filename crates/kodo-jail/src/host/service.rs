//! A jailed service: a program in the same jail as a job, for as long as this process wants it. The two talk over sockets
//! of the jail's network, which has nothing else.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use kodo_sandbox::provider::{CHUNK, frame};
use kodo_sandbox::{JobSpec, SandboxError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

use super::channel::{Channel, ServiceProgram};
use super::jail::Jail;
use super::job::{group, no_helper, refused};
use super::shared::Shared;
use crate::wire::Kind;

/// How long the jail may take until the program runs in it.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A service to be jailed.
#[derive(Clone, Debug)]
pub struct JailedServiceSpec {
    /// Arguments, environment, files and limits, as for a job, except that its time is unlimited. `argv` holds the
    /// arguments alone, since the program is [`program`](Self::program).
    pub job: JobSpec,
    /// The program on this machine. The jail gets a copy, so that no other user needs to be able to read it.
    pub program: PathBuf,
    /// The port, in the program's network, on which this process listens.
    pub port: u16,
}

/// A service that runs in a jail. Dropping it ends the program, and so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct JailedService {
    listener: TcpListener,
    requests: Sender<oneshot::Sender<OwnedFd>>,
    /// A byte wakes the supervisor for a request; closing it ends the program.
    wake: OwnedFd,
    ended: watch::Receiver<Option<String>>,
}

/// The program's file name in the jail.
const NAME: &str = "service";

impl Jail {
    /// Starts a service in the jail.
    ///
    /// # Errors
    /// [`SandboxError`], as for a job: if the whole jail cannot be made, nothing runs.
    pub async fn start_service(
        &self,
        mut spec: JailedServiceSpec,
    ) -> Result<JailedService, SandboxError> {
        spec.job.argv.insert(0, format!("/job/{NAME}"));
        spec.job.check()?;
        if self.shared.enclosure.is_some() {
            return Err(SandboxError::Refused {
                mechanism: "service".to_owned(),
                reason: format!("the provider {} runs no services", self.shared.provider()),
            });
        }
        let unavailable = |what: &str, error: io::Error| SandboxError::Unavailable {
            reason: format!("{what}: {error}"),
        };
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|error| unavailable("no pipe", error.into()))?;
        let (requests, requested) = channel();
        let (tell_end, ended) = watch::channel(None);
        let (answer, answered) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // A thread of its own and not one of the runtime's: the helper dies with the thread that started it.
        thread::Builder::new()
            .name("kodo-service".to_owned())
            .spawn(move || {
                let mut supervisor = Supervisor {
                    spec: &spec,
                    woken,
                    requested,
                    waiting: VecDeque::new(),
                    started: Some(answer),
                };
                let end = supervisor.run(&shared);
                let _ = tell_end.send(Some(end));
            })
            .map_err(|error| unavailable("no thread", error))?;
        let listener = answered.await.unwrap_or_else(|_| {
            Err(SandboxError::Unavailable {
                reason: "the thread of the service ended without an answer".to_owned(),
            })
        })?;
        let listener = StdListener::from(listener);
        listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map(|listener| JailedService {
                listener,
                requests,
                wake,
                ended,
            })
            .map_err(|error| unavailable("the listener", error))
    }
}

impl JailedService {
    /// The next connection that the program makes to this process's port.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// A connection to a port on which the program listens.
    ///
    /// # Errors
    /// Those of the system, or [`ErrorKind::NotConnected`] if the program has ended.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let gone = || io::Error::new(ErrorKind::NotConnected, "the program has ended");
        let (answer, answered) = oneshot::channel();
        self.requests.send(answer).map_err(|_| gone())?;
        rustix::io::write(&self.wake, &[1])?;
        let socket = StdStream::from(answered.await.map_err(|_| gone())?);
        socket.set_nonblocking(true)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpSocket::from_std_stream(socket).connect(address).await
    }

    /// Waits for the end of the program: how it ended, and what it last printed.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        end.unwrap_or_else(|| "its thread ended without an answer".to_owned())
    }
}

type Started = oneshot::Sender<Result<OwnedFd, SandboxError>>;

/// Runs one service, on a thread of its own.
struct Supervisor<'a> {
    spec: &'a JailedServiceSpec,
    woken: OwnedFd,
    requested: Receiver<oneshot::Sender<OwnedFd>>,
    /// Those that wait for a socket, in the order in which they asked.
    waiting: VecDeque<oneshot::Sender<OwnedFd>>,
    /// The caller that waits for the start.
    started: Option<Started>,
}

impl Supervisor<'_> {
    /// Runs it to its end. Returns how it ended.
    fn run(&mut self, shared: &Shared) -> String {
        let begun = group(shared, &self.spec.job).and_then(|group| {
            let program = ServiceProgram {
                program: &self.spec.program,
                name: NAME,
                port: self.spec.port,
            };
            let channel = Channel::open(shared, &self.spec.job, None).and_then(|mut channel| {
                let sent = channel.send_job(shared, &self.spec.job, group.as_ref(), Some(program));
                if sent.is_err() {
                    channel.helper.end();
                }
                sent.map(|()| channel)
            });
            Ok((group, channel.map_err(no_helper)?))
        });
        let (group, mut channel) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.refuse(error),
        };
        let ran = self.hold(&mut channel);
        channel.helper.end();
        let killed_for_memory = group
            .as_ref()
            .is_some_and(|group| group.observed().killed_for_memory);
        drop(group);
        if let Some(fault) = channel.output.fault.take() {
            return self.refuse(refused(fault));
        }
        let end = match ran {
            Err(error) => format!("the connection to the helper broke: {error}"),
            Ok(()) if killed_for_memory => "it was ended because it exceeded its memory".to_owned(),
            Ok(()) => how_it_ended(&channel),
        };
        self.refuse(SandboxError::Unavailable {
            reason: end.clone(),
        });
        end
    }

    /// Answers the caller that still waits for the start, if there is one.
    fn refuse(&mut self, error: SandboxError) -> String {
        let text = error.to_string();
        if let Some(started) = self.started.take() {
            let _ = started.send(Err(error));
        }
        text
    }

    /// Sends and receives until the program has ended, or nobody wants it any more.
    fn hold(&mut self, channel: &mut Channel) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut wanted = PollFlags::IN;
            if channel.has_unsent() {
                wanted |= PollFlags::OUT;
            }
            let mut fds = vec![
                PollFd::from_borrowed_fd(channel.helper.control.as_fd(), wanted),
                PollFd::new(&self.woken, PollFlags::IN),
            ];
            let streams = [
                channel.helper.stdout.as_ref().map(AsFd::as_fd),
                channel.helper.stderr.as_ref().map(AsFd::as_fd),
            ];
            for stream in streams.into_iter().flatten() {
                fds.push(PollFd::from_borrowed_fd(stream, PollFlags::IN));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.started.is_some() && left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let patience = self.started.as_ref().and(Timespec::try_from(left).ok());
            match poll(&mut fds, patience.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let woken = !fds[1].revents().is_empty();
            drop(fds);
            if woken && !self.take_requests(channel)? {
                return Ok(());
            }
            channel.flush();
            if let Some(error) = channel.unsent.take() {
                return Err(error);
            }
            channel.read_streams(&mut buffer, u64::MAX)?;
            let over = channel.receive(&mut buffer, &self.spec.job)?;
            self.hand_out_sockets(channel);
            if over {
                return channel.read_streams(&mut buffer, u64::MAX);
            }
        }
    }

    /// Passes requests for sockets on to the helper. Returns false once the [`JailedService`] is dropped.
    fn take_requests(&mut self, channel: &mut Channel) -> io::Result<bool> {
        let mut bytes = [0; 64];
        match rustix::io::read(&self.woken, &mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                for _ in 0..count {
                    if let Ok(request) = self.requested.try_recv() {
                        self.waiting.push_back(request);
                        channel.outgoing.extend(frame(Kind::NewSocket, &[]));
                    }
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// The first socket is the listener, and comes before the program runs; each further one was asked for.
    fn hand_out_sockets(&mut self, channel: &mut Channel) {
        if self.started.is_some() {
            if channel.output.started.is_none() || channel.sockets.is_empty() {
                return;
            }
            let listener = channel.sockets.remove(0);
            if let Some(started) = self.started.take() {
                let _ = started.send(Ok(listener));
            }
        }
        for socket in channel.sockets.drain(..) {
            if let Some(waiting) = self.waiting.pop_front() {
                // Fails if the caller no longer waits for it.
                let _ = waiting.send(socket);
            }
        }
    }
}

fn how_it_ended(channel: &Channel) -> String {
    let status = channel.output.exit.as_ref().map(|exit| exit.status);
    let how = match status {
        Some(status) if status & 0x7f == 0 => format!("it exited with {}", (status >> 8) & 0xff),
        Some(status) => format!("it was ended by signal {}", status & 0x7f),
        None => "it was ended".to_owned(),
    };
    match channel.last_words() {
        Some(words) => format!("{how}; the last that it printed: {words}"),
        None => how,
    }
}
