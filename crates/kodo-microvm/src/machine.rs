//! One machine: it is booted, waits for an order, carries it out, and is gone.
//!
//! Each has a thread of its own, and not one of the runtime's: the emulator dies with the thread that started it.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kodo_sandbox::{JobResult, JobSpec, SandboxError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use crate::acceleration::Acceleration;
use crate::emulator::{Launcher, Start};
use crate::images::Images;
use crate::outcome::Heard;
use crate::provider::{MicroVmConfig, enforced};
use crate::wire::{self, CHUNK, Frames, Kind, Order, Ready, from_json, json_frame};

/// Users of the machine that emulators are where the service is user 0: each another one, beside those of the
/// jail. Far above what distributions hand out.
const FIRST_USER: u32 = 1_985_900_000;
const USERS: u32 = 65_536;
/// `nobody`, where a container maps no such user.
const NOBODY: u32 = 65_534;
/// How much of what a machine prints is kept, for somebody who wants to know why it did not start.
const CONSOLE: usize = 2048;

/// How a machine is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    launcher: Launcher,
    images: Images,
    acceleration: Acceleration,
    memory_mib: u64,
    /// How long it may take to come up.
    pub(crate) boot: Duration,
}

impl Plan {
    pub(crate) fn of(config: &MicroVmConfig) -> Result<Self, SandboxError> {
        Ok(Self {
            launcher: config.launcher.clone(),
            images: Images::find(&config.folder)?,
            acceleration: config.acceleration,
            memory_mib: config.memory_mib,
            boot: config.acceleration.boot(),
        })
    }

    /// The same with more memory.
    pub(crate) fn with_memory(&self, memory_mib: u64) -> Self {
        Self {
            memory_mib,
            ..self.clone()
        }
    }

    fn start(&self) -> Start {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id());
        Start {
            parent: i32::try_from(std::process::id()).unwrap_or(0),
            users: vec![FIRST_USER + next % USERS, NOBODY],
            groups: self.acceleration.groups(),
            program: self.images.emulator.clone(),
            arguments: self.arguments(),
            libraries: self.images.libraries.clone(),
            read: vec![self.images.folder.clone()],
        }
    }

    /// QEMU with one processor, one port, a console that it only writes to, a disk that it only reads, and nothing
    /// else: no network, no monitor, no configuration of the machine's.
    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| all.extend(words.iter().map(OsString::from));
        add(&[
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        add(&[
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
        add(&[
            "-machine",
            "q35,usb=off,sata=off,smbus=off,vmport=off,graphics=off",
            "-smp",
            "1",
        ]);
        add(&["-m", &self.memory_mib.to_string()]);
        let mut boot = "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic reboot=t rdinit=/init random.trust_cpu=on".to_owned();
        match self.acceleration {
            Acceleration::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
            Acceleration::Tcg => {
                add(&["-accel", "tcg,tb-size=128", "-cpu", "max"]);
                // There is no processor underneath whose speculation could be steered.
                boot.push_str(" mitigations=off nokaslr no_timer_check tsc=reliable");
            }
        }
        add(&["-append", &boot]);
        add(&[
            "-chardev",
            "socket,id=port,fd=0",
            "-device",
            "virtio-serial-pci,max_ports=2",
        ]);
        add(&["-device", "virtserialport,chardev=port,name=kodo"]);
        add(&[
            "-chardev",
            "socket,id=console,fd=1",
            "-serial",
            "chardev:console",
        ]);
        let mut disk = OsString::from("id=system,format=raw,readonly=on,if=none,file=");
        // A comma ends a value; two of them are one.
        disk.push(self.images.system.to_string_lossy().replace(',', ",,"));
        all.extend(["-drive".into(), disk]);
        all.extend(["-device".into(), "virtio-blk-pci,drive=system".into()]);
        for folder in self.images.firmware().into_iter().flatten() {
            all.extend(["-L".into(), folder.into()]);
        }
        all.extend(["-kernel".into(), self.images.kernel.clone().into()]);
        all.extend(["-initrd".into(), self.images.tree.clone().into()]);
        all
    }
}

/// What a machine is to do, and whom it tells.
pub(crate) struct Work {
    pub(crate) spec: JobSpec,
    pub(crate) answer: oneshot::Sender<Result<JobResult, SandboxError>>,
    /// Open as long as somebody waits for the result.
    pub(crate) waited_for: OwnedFd,
}

type Place = Arc<Mutex<Option<Box<Work>>>>;

/// A machine that has come up and waits. Dropping it is the end of it.
pub(crate) struct Machine {
    place: Place,
    bell: UnixStream,
    booted_in: Duration,
}

impl Machine {
    /// Boots one, and waits for it.
    pub(crate) fn boot(plan: &Plan) -> Result<Self, SandboxError> {
        let plan = plan.clone();
        let (place, (bell, rung)) = (
            Place::default(),
            UnixStream::pair().map_err(broken("no socket"))?,
        );
        let (tell, told) = mpsc::channel();
        let theirs = Arc::clone(&place);
        let began = Instant::now();
        thread::Builder::new()
            .name("kodo-microvm".to_owned())
            .spawn(move || live(&plan, &theirs, &rung, &tell))
            .map_err(broken("no thread"))?;
        let up = told.recv().unwrap_or_else(|_| {
            Err(SandboxError::Unavailable {
                reason: "the thread of the machine broke off".to_owned(),
            })
        });
        up.map(|()| Self {
            place,
            bell,
            booted_in: began.elapsed(),
        })
    }

    pub(crate) fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// Hands it its one order. Gives the work back where the machine has ended in the meantime.
    pub(crate) fn order(mut self, work: Box<Work>) -> Result<(), Box<Work>> {
        *lock(&self.place) = Some(work);
        if self.bell.write_all(&[1]).is_ok() {
            return Ok(());
        }
        match lock(&self.place).take() {
            Some(work) => Err(work),
            None => Ok(()),
        }
    }
}

fn lock(place: &Place) -> std::sync::MutexGuard<'_, Option<Box<Work>>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(what: &str) -> impl Fn(io::Error) -> SandboxError + '_ {
    move |error| SandboxError::Unavailable {
        reason: format!("{what}: {error}"),
    }
}

/// The whole life of a machine.
fn live(
    plan: &Plan,
    place: &Place,
    bell: &UnixStream,
    tell: &mpsc::Sender<Result<(), SandboxError>>,
) {
    let up = Talk::begin(plan)
        .map_err(broken("start the emulator"))
        .and_then(|mut talk| match talk.come_up(plan, bell) {
            Ok(ready) => Ok((talk, ready)),
            Err(error) => Err(talk.end(&error)),
        });
    let (mut talk, ready) = match up {
        Ok(up) => up,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    // Whoever wanted it may have given up; then the bell rings with nothing to do.
    let _ = tell.send(Ok(()));
    if talk.idle(bell).is_err() {
        // It died while it waited, or nobody wants it. Work that came at the same moment goes back.
        bell.shutdown(std::net::Shutdown::Both).unwrap_or(());
        let _ = talk.child.kill();
        let _ = talk.child.wait();
        if let Some(work) = lock(place).take() {
            let reason = "the machine ended before its job began".to_owned();
            let _ = work.answer.send(Err(SandboxError::Unavailable { reason }));
        }
        return;
    }
    let Some(work) = lock(place).take() else {
        talk.stop();
        return;
    };
    let held = enforced(plan.acceleration, &ready, plan.memory_mib);
    let began = Instant::now();
    let mut heard = Heard::new(&work.spec);
    let deadline = began + work.spec.limits.wall + plan.acceleration.grace();
    let result = match talk.carry_out(&work.spec, &work.waited_for, &mut heard, deadline) {
        Ok(End::Said) => heard.judge(held),
        Ok(End::Late) => Ok(heard.late(began.elapsed(), held)),
        Ok(End::Abandoned) => Err(SandboxError::Unavailable {
            reason: "nobody waits for the job any more".to_owned(),
        }),
        Err(error) => {
            let _ = work.answer.send(Err(talk.end(&error)));
            return;
        }
    };
    // Gone before anybody hears of the result: nothing of a job is left then.
    talk.stop();
    let _ = work.answer.send(result);
}

enum End {
    Said,
    Late,
    Abandoned,
}

/// The conversation with one machine.
struct Talk {
    child: Child,
    port: UnixStream,
    console: UnixStream,
    printed: Vec<u8>,
    frames: Frames,
    buffer: Vec<u8>,
}

impl Talk {
    fn begin(plan: &Plan) -> io::Result<Self> {
        let (port, their_port) = UnixStream::pair()?;
        let (console, their_console) = UnixStream::pair()?;
        let mut command = plan.launcher.command(&plan.start())?;
        command
            .stdin(Stdio::from(OwnedFd::from(their_port)))
            .stderr(Stdio::from(OwnedFd::from(their_console.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(their_console)));
        let child = command.spawn()?;
        // It holds the other ends, which must not stay open here.
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

    /// Waits until something can be read, or written if that is wanted, or `other` says something.
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

    /// Reads what there is. The end of it is an error: a machine says when it is done.
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

    fn come_up(&mut self, plan: &Plan, bell: &UnixStream) -> io::Result<Ready> {
        let deadline = Instant::now() + plan.boot;
        loop {
            match self.wait(bell, false, Some(deadline))? {
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

    /// Waits for the bell.
    fn idle(&mut self, bell: &UnixStream) -> io::Result<()> {
        loop {
            if let Woken::Other = self.wait(bell, false, None)? {
                let mut one = [0];
                let mut bell = bell;
                return bell.read_exact(&mut one);
            }
            // A guest that speaks unasked is broken, or gone.
            self.read_port()?;
            if self.frames.waiting() > 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn carry_out(
        &mut self,
        spec: &JobSpec,
        waited_for: &OwnedFd,
        heard: &mut Heard,
        deadline: Instant,
    ) -> io::Result<End> {
        let mut outgoing = json_frame(Kind::Order, &Order::of(spec))?;
        for file in &spec.files {
            for chunk in file.content.chunks(CHUNK) {
                outgoing.extend(wire::frame(Kind::Data, chunk));
            }
        }
        let mut sent = 0;
        loop {
            match self.wait(waited_for, sent < outgoing.len(), Some(deadline))? {
                Woken::Late => return Ok(End::Late),
                Woken::Other => return Ok(End::Abandoned),
                Woken::Port => {}
            }
            while sent < outgoing.len() {
                match self.port.write(&outgoing[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // It has ended: what it said before is still to be read.
                    Err(_) => sent = outgoing.len(),
                }
            }
            let read = self.read_port();
            while let Some((kind, content)) = self.frames.take()? {
                if heard.take(kind, &content)? {
                    return Ok(End::Said);
                }
            }
            read?;
        }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it, and says why with what it printed.
    fn end(&mut self, error: &io::Error) -> SandboxError {
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

impl Drop for Talk {
    fn drop(&mut self) {
        // Whatever happened: no emulator outlives its thread.
        self.stop();
    }
}

enum Woken {
    Port,
    Other,
    Late,
}
