//! The init process of the jail. It is alone in a pid namespace with the job: when it ends, the kernel kills all that is
//! left, and no signal from inside reaches it.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use kodo_sandbox::provider::{from_json, receive, send};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::collect;
use super::control::{die_with_parent, report};
use super::explain::Explainer;
use super::program::{self, Program};
use super::restore::{self, Given};
use super::seccomp::Filters;
use super::watch::{self, FileCount};
use super::{tree, users};
use crate::defence::{Defence, on};
use crate::layout::USER;
use crate::sockets;
use crate::sys::{self, Fork};
use crate::wire::{Cut, Exit, Fault, Kernel, Kind, Proc, Spec, Started};

/// How often memory is looked at, if no cgroup limits it.
const LOOK: Duration = Duration::from_millis(10);
/// The same for a jailed service: looking costs time, and there is no other program in its jail.
const SELDOM: Duration = Duration::from_secs(1);

/// Builds the rest of the jail, runs the program in it, kills what is left, and hands everything back.
pub(crate) fn run(
    control: &mut UnixStream,
    spec: &Spec,
    user: u32,
    filters: &Filters,
    kernel: Kernel,
) -> Result<(), Fault> {
    die_with_parent()?;
    if on(Defence::Undumpable) {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Fault::at("undumpable"))?;
    }
    let in_gvisor = kernel.is_gvisor();
    let tree = if in_gvisor {
        tree::enter_guest(spec)?
    } else {
        tree::enter(spec)?
    };
    // Without a pid namespace (in a test) the jail has no /proc of its own, and nothing is watched.
    if spec.watch && tree.proc == Proc::None && on(Defence::PidNamespace) {
        return Err(Fault::new(
            "memory-limit",
            "without a cgroup memory is watched through /proc, and this machine allows the jail none",
        ));
    }
    let folder = tree::job_folder();
    if in_gvisor {
        // The job's files belong to the job's user.
        users::act_as_user(USER).map_err(Fault::at("leave-root"))?;
    }
    let given = restore::receive_tree(control, folder, spec.entries, &spec.limits)?;
    if in_gvisor {
        users::act_as_user(0).map_err(Fault::at("leave-root"))?;
    }
    let program = Program::prepare(spec, filters, kernel)?;
    if let Some(port) = spec.service_port {
        let listener = sockets::listener(port).map_err(Fault::at("sockets"))?;
        sockets::send(control, listener.as_fd()).map_err(Fault::at("sockets"))?;
    }
    let watch = watch::Watch::new(in_gvisor);
    let ended = sys::children_ended().map_err(Fault::at("signals"))?;
    // Closed by the exec of the program; before that it carries the reason why there is none.
    let (mut failure, mut tell) = UnixStream::pair().map_err(Fault::at("fork"))?;
    let began = Instant::now();
    let child = match sys::fork().map_err(Fault::at("fork"))? {
        Fork::Child => {
            drop(failure);
            let fault = program.start(spec, &tell);
            report(&mut tell, &fault);
            sys::exit_now(1);
        }
        Fork::Parent(child) => child,
    };
    drop(tell);
    let mut explainer = None;
    if spec.explain {
        // Of the one byte only the descriptor beside it matters; a fault comes without one, and is read below.
        explainer = listener_of(&failure).map_err(Fault::at("seccomp"))?;
    }
    while let Ok((kind, content)) = receive::<Kind>(&mut failure) {
        if kind == Kind::Fault {
            return Err(from_json(&content).unwrap_or_else(Fault::at("program")));
        }
    }
    drop(failure);
    let started = Started {
        user,
        landlock: sys::landlock_version(),
        proc: tree.proc,
        terminals: tree.terminals,
        open_files: program::open_files(&spec.limits),
    };
    let content = serde_json::to_vec(&started).map_err(Fault::at("report"))?;
    send(control, Kind::Started, &content).map_err(Fault::at("report"))?;
    leave_streams().map_err(Fault::at("streams"))?;

    let mut job = Job {
        spec,
        child,
        deadline: on(Defence::Deadline)
            .then(|| began + spec.limits.wall)
            .filter(|_| spec.service_port.is_none()),
        folder,
        given,
        most: watch::Seen::default(),
        watch,
        file_count: in_gvisor.then(|| FileCount::new(spec.limits.inodes)),
        lifeline: on(Defence::Lifeline),
        explainer,
        now: 0,
        status: None,
    };
    let cut = job.wait(control, &ended).map_err(Fault::at("wait"))?;
    let wall = began.elapsed();
    // As any other process than the init of a namespace (in a test) this would kill processes that are not the job's.
    let first = rustix::process::getpid() == rustix::process::Pid::INIT;
    if on(Defence::KillAll) && first {
        sys::kill_all();
        while let Ok(Some(other)) = sys::reap(true) {
            job.note(&other);
        }
    }
    // Once more, now that nothing changes any more.
    let cut = cut.or_else(|| job.too_many_files(true).then_some(Cut::Inodes));
    let disk = job.disk().map_err(Fault::at("collect"))?;
    if in_gvisor {
        // The job's files are read as the job's user, with no more rights than the job had.
        users::become_user(USER).map_err(Fault::at("leave-root"))?;
    }
    let exit = job.finish(control, cut, wall, &disk);
    let exit = exit.map_err(Fault::at("collect"))?;
    let content = serde_json::to_vec(&exit).map_err(Fault::at("report"))?;
    send(control, Kind::Exit, &content).map_err(Fault::at("report"))
}

/// Closes this process's standard output and error: they are the job's alone.
fn leave_streams() -> io::Result<()> {
    let nothing = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for stream in [1, 2] {
        sys::duplicate_onto(nothing.as_fd(), stream, true)?;
    }
    Ok(())
}

/// Takes the listener that the job's process sends before it becomes the program. `None` if it sends none: then it says why
/// instead, which stays to be read.
fn listener_of(from: &UnixStream) -> io::Result<Option<Explainer>> {
    // As long as the frame that a descriptor comes with: what follows it is not touched.
    let mut bytes = vec![0; kodo_sandbox::provider::frame(Kind::Socket, &[]).len()];
    let mut peeked = bytes.clone();
    let count = rustix::net::recv(from, &mut peeked[..], RecvFlags::PEEK)?.1;
    if count == 0 || peeked.first() != Some(&(Kind::Socket as u8)) {
        return Ok(None);
    }
    let mut sockets = Vec::new();
    sockets::receive(from, &mut bytes, &mut sockets)?;
    Ok(sockets.pop().map(Explainer::new))
}

struct Job<'a> {
    spec: &'a Spec,
    child: libc::pid_t,
    deadline: Option<Instant>,
    folder: &'a Path,
    /// The files that it was given; they are handed back only if they were changed.
    given: Given,
    /// The most that the watch has seen.
    most: watch::Seen,
    watch: watch::Watch,
    /// Counts files, if nothing limits them.
    file_count: Option<FileCount>,
    lifeline: bool,
    /// Answers the filter of system calls, while it is explained what the job is refused.
    explainer: Option<Explainer>,
    /// Processes when the watch looked last.
    now: u64,
    status: Option<i32>,
}

impl Job<'_> {
    /// Notes the program's exit status.
    fn note(&mut self, ended: &sys::Ended) {
        if ended.pid == self.child {
            self.status = Some(ended.status);
        }
    }

    /// Waits for the end of the program, or for a reason to end it.
    fn wait(
        &mut self,
        control: &mut UnixStream,
        ended: &std::os::fd::OwnedFd,
    ) -> io::Result<Option<Cut>> {
        let mut drain = [0; 128];
        loop {
            while let Ok(Some(other)) = sys::reap(false) {
                self.note(&other);
            }
            if self.status.is_some() {
                if self.spec.watch {
                    // A fork that the limit refused fails at once, and the other processes are still there.
                    self.over_memory();
                    self.most.processes = self.most.processes.max(self.now + 1);
                }
                return Ok(None);
            }
            if self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                return Ok(Some(Cut::Timeout));
            }
            if self.spec.watch && self.over_memory() {
                return Ok(Some(Cut::Memory));
            }
            if self.too_many_files(false) {
                return Ok(Some(Cut::Inodes));
            }
            let mut fds = vec![
                PollFd::new(ended, PollFlags::IN),
                PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN),
            ];
            let listener = self.explainer.as_ref().map(|it| it.listener.as_fd());
            fds.extend(listener.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)));
            match poll(&mut fds, self.patience().as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let (child, service) = (fds[0].revents(), fds[1].revents());
            let asked = fds.get(2).map(PollFd::revents);
            drop(fds);
            if asked.is_some_and(|it| it.contains(PollFlags::IN)) {
                self.explainer.iter_mut().for_each(Explainer::answer);
            }
            if child.contains(PollFlags::IN) {
                // How many signals there were does not matter: every child that has ended is reaped above.
                while rustix::io::read(ended, &mut drain).is_ok_and(|count| count > 0) {}
            }
            if service.contains(PollFlags::IN) {
                // An error if the service died before it had read everything: see below.
                match receive(control) {
                    Ok((Kind::Stop, _)) => return Ok(Some(Cut::Stopped)),
                    Ok((Kind::NewSocket, _)) if self.spec.service_port.is_some() => {
                        sockets::send(control, sockets::unconnected()?.as_fd())?;
                        continue;
                    }
                    _ => {}
                }
            }
            let gone = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            if self.lifeline && service.intersects(gone) {
                // The service has died: the end of this process is the end of all processes here.
                sys::exit_now(1);
            }
        }
    }

    /// How long to wait until the deadline, or until memory is to be looked at.
    fn patience(&self) -> Option<Timespec> {
        let mut most = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if self.spec.watch {
            let look = if self.spec.service_port.is_some() {
                SELDOM
            } else {
                LOOK
            };
            most = Some(most.map_or(look, |most| most.min(look)));
        }
        most.and_then(|most| Timespec::try_from(most).ok())
    }

    fn over_memory(&mut self) -> bool {
        let files = self.disk().map_or(0, |disk| disk.used);
        let seen = self.watch.look(&self.spec.limits, files);
        self.most.memory = self.most.memory.max(seen.memory);
        self.most.processes = self.most.processes.max(seen.processes);
        self.now = seen.processes;
        seen.memory > self.spec.limits.memory_bytes
    }

    fn too_many_files(&mut self, now: bool) -> bool {
        self.file_count
            .as_mut()
            .is_some_and(|count| count.over(now))
    }

    fn disk(&self) -> io::Result<Disk> {
        let stat = rustix::fs::statvfs(self.folder)?;
        Ok(Disk {
            used: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
            full: stat.f_bfree == 0,
            // gVisor has no such limit, and always says 0.
            inodes_full: stat.f_ffree == 0 && self.file_count.is_none(),
        })
    }

    fn finish(
        &self,
        control: &mut UnixStream,
        cut: Option<Cut>,
        wall: Duration,
        disk: &Disk,
    ) -> io::Result<Exit> {
        let collected = collect::send_tree(self.folder, &self.given, self.spec, control)?;
        let (user, system, max_rss) = sys::children_used();
        let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX);
        Ok(Exit {
            // If it was killed with the rest, that was by SIGKILL.
            status: self.status.unwrap_or(libc::SIGKILL),
            cut,
            disk_full: disk.full,
            inodes_full: disk.inodes_full,
            processes_full: self.spec.watch && self.most.processes >= self.spec.limits.processes,
            returned_full: collected.full,
            not_carried: collected.not_carried,
            skipped: collected.skipped,
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
            user_us: micros(user),
            system_us: micros(system),
            max_rss,
            peak_memory: self.spec.watch.then_some(self.most.memory),
            disk_bytes: disk.used,
            refused: self.explainer.as_ref().map(Explainer::lines),
        })
    }
}

struct Disk {
    used: u64,
    full: bool,
    inodes_full: bool,
}
