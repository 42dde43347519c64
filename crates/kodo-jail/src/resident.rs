//! A program that stays: in the same jail as a job, for as long as the service wants it, and with sockets of its network
//! in the service's hands.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use kodo_sandbox::{Captured, JobSpec, SandboxError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::Jail;
use crate::jail::Inner;
use crate::job::{broken, group};
use crate::talk::{Stays, Talk};
use crate::wire::{self, CHUNK, Fault, Kind};

/// How long the jail may take until the program runs in it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of what it last printed is told when it has ended, in characters.
const SHOWN: usize = 400;

/// What is to stay.
#[derive(Clone, Debug)]
pub struct ResidentSpec {
    /// Arguments, environment, files and limits, as for a job; the time alone has no bound. `argv` begins with the
    /// arguments, since the program is [`program`](Self::program).
    pub job: JobSpec,
    /// The program on this machine. The jail gets a copy, so that it need not be readable for anybody else.
    pub program: PathBuf,
    /// The port, in the program's network, on which the service listens.
    pub port: u16,
}

/// A program that runs in a jail. Dropping it ends it, and so does the end of the service, however that comes.
#[derive(Debug)]
pub struct Resident {
    listener: TcpListener,
    requests: Sender<oneshot::Sender<OwnedFd>>,
    /// A byte for each request; closed, it ends the program.
    bell: OwnedFd,
    ended: watch::Receiver<Option<String>>,
}

/// What the program is called in its folder.
const NAME: &str = "resident";

impl Jail {
    /// Starts a program that stays.
    ///
    /// # Errors
    /// [`SandboxError`], as for a job: where the whole jail cannot be put up, nothing runs.
    pub async fn keep(&self, mut spec: ResidentSpec) -> Result<Resident, SandboxError> {
        spec.job.argv.insert(0, format!("/job/{NAME}"));
        spec.job.check()?;
        if self.inner.enclosure.is_some() {
            return Err(SandboxError::Refused {
                mechanism: "resident".to_owned(),
                reason: format!("the provider {} keeps no programs", self.inner.provider()),
            });
        }
        let unavailable = |what: &str, error: io::Error| SandboxError::Unavailable {
            reason: format!("{what}: {error}"),
        };
        let (rung, bell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|error| unavailable("no pipe", error.into()))?;
        let (requests, requested) = channel();
        let (tell_end, ended) = watch::channel(None);
        let (answer, answered) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        // A thread of its own and not one of the runtime's: the helper dies with the thread that started it.
        thread::Builder::new()
            .name("kodo-resident".to_owned())
            .spawn(move || {
                let mut keeper = Keeper {
                    spec: &spec,
                    rung,
                    requested,
                    waiting: VecDeque::new(),
                    started: Some(answer),
                };
                let end = keeper.run(&inner);
                let _ = tell_end.send(Some(end));
            })
            .map_err(|error| unavailable("no thread", error))?;
        let listener = answered.await.unwrap_or_else(|_| {
            Err(SandboxError::Unavailable {
                reason: "the thread of the program broke off".to_owned(),
            })
        })?;
        let listener = StdListener::from(listener);
        listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map(|listener| Resident {
                listener,
                requests,
                bell,
                ended,
            })
            .map_err(|error| unavailable("the listener", error))
    }
}

impl Resident {
    /// The next connection that the program makes to the service's port.
    ///
    /// # Errors
    /// As the system has it.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// A connection to a port on which the program listens.
    ///
    /// # Errors
    /// As the system has it, or where the program has ended.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let gone = || io::Error::new(ErrorKind::NotConnected, "the program has ended");
        let (answer, answered) = oneshot::channel();
        self.requests.send(answer).map_err(|_| gone())?;
        rustix::io::write(&self.bell, &[Kind::Dial as u8])?;
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
        end.unwrap_or_else(|| "its thread broke off".to_owned())
    }
}

type Started = oneshot::Sender<Result<OwnedFd, SandboxError>>;

/// What holds a resident, on a thread of its own.
struct Keeper<'a> {
    spec: &'a ResidentSpec,
    rung: OwnedFd,
    requested: Receiver<oneshot::Sender<OwnedFd>>,
    /// Who waits for a socket.
    waiting: VecDeque<oneshot::Sender<OwnedFd>>,
    /// Who waits for the start.
    started: Option<Started>,
}

impl Keeper<'_> {
    /// Runs it to its end, and says what that was.
    fn run(&mut self, inner: &Inner) -> String {
        let begun = group(inner, &self.spec.job).and_then(|group| {
            let stays = Stays {
                program: &self.spec.program,
                name: NAME,
                port: self.spec.port,
            };
            let talk = Talk::begin(inner, &self.spec.job, None).and_then(|mut talk| {
                let told = talk.tell(inner, &self.spec.job, group.as_ref(), Some(stays));
                if told.is_err() {
                    talk.helper.end();
                }
                told.map(|()| talk)
            });
            Ok((group, talk.map_err(broken("start the helper"))?))
        });
        let (group, mut talk) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.refuse(error),
        };
        let held = self.hold(&mut talk);
        talk.helper.end();
        let killed_for_memory = group
            .as_ref()
            .is_some_and(|group| group.seen().killed_for_memory);
        drop(group);
        if let Some(Fault { mechanism, reason }) = talk.heard.fault.take() {
            return self.refuse(SandboxError::Refused { mechanism, reason });
        }
        let end = match held {
            Err(error) => format!("the talk with the helper broke off: {error}"),
            Ok(()) if killed_for_memory => "it was ended for want of memory".to_owned(),
            Ok(()) => how(&talk),
        };
        self.refuse(SandboxError::Unavailable {
            reason: end.clone(),
        });
        end
    }

    /// Tells whoever still waits for the start.
    fn refuse(&mut self, error: SandboxError) -> String {
        let text = error.to_string();
        if let Some(started) = self.started.take() {
            let _ = started.send(Err(error));
        }
        text
    }

    fn hold(&mut self, talk: &mut Talk) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut wanted = PollFlags::IN;
            if talk.has_more() {
                wanted |= PollFlags::OUT;
            }
            let mut fds = vec![
                PollFd::from_borrowed_fd(talk.helper.control.as_fd(), wanted),
                PollFd::new(&self.rung, PollFlags::IN),
            ];
            let streams = [
                talk.helper.stdout.as_ref().map(AsFd::as_fd),
                talk.helper.stderr.as_ref().map(AsFd::as_fd),
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
            let rung = !fds[1].revents().is_empty();
            drop(fds);
            if rung && !self.hear(talk)? {
                // Nobody wants it any more.
                return Ok(());
            }
            talk.feed();
            talk.read_streams(&mut buffer, u64::MAX)?;
            let over = talk.listen(&mut buffer, &self.spec.job)?;
            self.hand_on(talk);
            if over {
                return talk.read_streams(&mut buffer, u64::MAX);
            }
        }
    }

    /// Passes on what was asked for. False where nobody will ask again.
    fn hear(&mut self, talk: &mut Talk) -> io::Result<bool> {
        let mut rings = [0; 64];
        match rustix::io::read(&self.rung, &mut rings) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                for _ in 0..count {
                    if let Ok(request) = self.requested.try_recv() {
                        self.waiting.push_back(request);
                        talk.outgoing.extend(wire::frame(Kind::Dial, &[]));
                    }
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// The first socket is the listener, and comes before the program runs; each further one was asked for.
    fn hand_on(&mut self, talk: &mut Talk) {
        if self.started.is_some() {
            if talk.heard.started.is_none() || talk.doors.is_empty() {
                return;
            }
            let listener = talk.doors.remove(0);
            if let Some(started) = self.started.take() {
                let _ = started.send(Ok(listener));
            }
        }
        for socket in talk.doors.drain(..) {
            if let Some(waiting) = self.waiting.pop_front() {
                // Whoever asked may no longer wait for it.
                let _ = waiting.send(socket);
            }
        }
    }
}

fn how(talk: &Talk) -> String {
    let code = talk.heard.exit.as_ref().map(|exit| exit.status);
    let how = match code {
        Some(status) if status & 0x7f == 0 => format!("it exited with {}", (status >> 8) & 0xff),
        Some(status) => format!("it was ended by signal {}", status & 0x7f),
        None => "it was ended".to_owned(),
    };
    let printed: Vec<String> = talk.printed.iter().map(Captured::text).collect();
    let printed = printed.join(" ");
    let words: Vec<&str> = printed.split_whitespace().collect();
    let text = words.join(" ");
    let skip = text.chars().count().saturating_sub(SHOWN);
    let tail: String = text.chars().skip(skip).collect();
    if tail.is_empty() {
        how
    } else {
        format!("{how}; the last that it printed: {tail}")
    }
}
