//! Helpers that are started before there is a job for them, so that a job does not wait until one has come to life.
//!
//! A helper dies with the thread that started it, so what waits for a job is a thread with its helper, and that thread
//! then sees the job through.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use kodo_sandbox::{JobResult, JobSpec, SandboxError};
use tokio::sync::oneshot;

use crate::jail::{Helper, Inner};
use crate::job;
use crate::process::HelperProcess;

/// How long a helper waits for a job before it is ended: a service that has nothing to do keeps nothing for it.
const IDLE: Duration = Duration::from_secs(60);

/// A job, and where its result goes.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) spec: JobSpec,
    /// Closes when nobody waits for the result any more.
    pub(crate) waited_for: OwnedFd,
    pub(crate) answer: oneshot::Sender<Result<JobResult, SandboxError>>,
}

/// The threads that wait for an errand, each by the other end of its channel.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    id: thread::ThreadId,
    errand: Sender<Errand>,
}

impl Spares {
    /// Nothing that holds the lock can panic half-way, so what a poisoned one guards is whole.
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an errand to a thread that waits for one. Returns it where none does.
    fn hand_over(&self, mut errand: Errand) -> Option<Errand> {
        // Under the lock as a whole: a thread that gives up waiting takes itself out first, and what was sent by then is
        // there for it to find.
        let mut waiting = self.waiting();
        loop {
            let Some(one) = waiting.pop() else {
                return Some(errand);
            };
            match one.errand.send(errand) {
                Ok(()) => return None,
                Err(SendError(back)) => errand = back,
            }
        }
    }
}

/// Sees to it that a job is run, on a thread of its own and not one of the runtime's.
///
/// # Errors
/// Where there is no thread for it.
pub(crate) fn run(inner: &Arc<Inner>, errand: Errand) -> io::Result<()> {
    let Some(errand) = inner.spares.hand_over(errand) else {
        return Ok(());
    };
    let inner = Arc::clone(inner);
    spawn(move || carry_out(&inner, errand, None)).map(drop)
}

/// Has as many helpers wait for jobs as the configuration wants. Where there is no thread or no process for one, the next
/// job waits a little longer, and that is all.
fn make_ready(inner: &Arc<Inner>) {
    // Held to the end: of jobs that end at the same moment, each counts what the others have made ready.
    let mut waiting = inner.spares.waiting();
    for _ in waiting.len()..inner.config.ready {
        let (sender, errands) = channel();
        let (weak, helper) = (Arc::downgrade(inner), inner.config.helper.clone());
        let thread = spawn(move || wait(&weak, &errands, &helper));
        let Ok(thread) = thread else { break };
        waiting.push(Waiting {
            id: thread.thread().id(),
            errand: sender,
        });
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("kodo-jail".to_owned())
        .spawn(work)
}

/// Waits for an errand with a helper at hand, and carries it out. Ends when the jail does, or for want of work.
fn wait(inner: &Weak<Inner>, errands: &Receiver<Errand>, helper: &Helper) {
    let helper = HelperProcess::start(helper).ok();
    // Without one there is nothing to wait with; but somebody may have handed over an errand meanwhile.
    let patience = if helper.is_some() {
        IDLE
    } else {
        Duration::ZERO
    };
    let errand = match errands.recv_timeout(patience) {
        Ok(errand) => Some(errand),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            if let Some(inner) = inner.upgrade() {
                let own = thread::current().id();
                inner.spares.waiting().retain(|it| it.id != own);
            }
            // From here on nobody hands over any more; somebody may just have done so.
            errands.try_recv().ok()
        }
    };
    match (errand, inner.upgrade()) {
        (Some(errand), Some(inner)) => carry_out(&inner, errand, helper),
        (_, _) => {
            if let Some(mut helper) = helper {
                helper.end();
            }
        }
    }
}

fn carry_out(inner: &Arc<Inner>, errand: Errand, helper: Option<HelperProcess>) {
    let Errand {
        spec,
        waited_for,
        answer,
    } = errand;
    // Nobody waits any more: then nobody needs the answer.
    let _ = answer.send(job::run(inner, &spec, &waited_for, helper));
    // Not before, where it would take time from the job.
    make_ready(inner);
}
