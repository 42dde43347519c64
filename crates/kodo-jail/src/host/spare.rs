//! Threads that run jobs, and helpers that are started before there is a job for them, so that a job does not wait until
//! one has come up.
//!
//! A helper dies with the thread that started it, so what waits for a job is a thread with its helper, and that thread
//! then runs the job to its end.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use kodo_sandbox::provider::Request;

use super::job;
use super::process::HelperProcess;
use super::shared::{Helper, Shared};

/// How long a helper waits for a job before it is ended: a service that has nothing to do keeps no process for it.
const IDLE: Duration = Duration::from_secs(60);

/// The threads that wait for a request, each by the sending end of its channel.
#[derive(Debug)]
pub(crate) struct Helpers {
    shared: Arc<Shared>,
    waiting: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    id: thread::ThreadId,
    requests: Sender<Request>,
}

impl Helpers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            waiting: Mutex::default(),
        }
    }

    /// Runs a job on a thread of its own: one that waits with a helper, or a new one.
    ///
    /// # Errors
    /// If no thread can be started for it.
    pub(crate) fn run(self: &Arc<Self>, request: Request) -> io::Result<()> {
        let Some(request) = self.hand_over(request) else {
            return Ok(());
        };
        let helpers = Arc::clone(self);
        spawn(move || helpers.carry_out(request, None)).map(drop)
    }

    /// Nothing that holds the lock can panic half-way, so what a poisoned one guards is consistent.
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request to a thread that waits for one. Returns it if none does.
    fn hand_over(&self, mut request: Request) -> Option<Request> {
        // All of it under the lock: a thread that gives up waiting removes itself first, and finds what was sent to it
        // before that.
        let mut waiting = self.waiting();
        loop {
            let Some(one) = waiting.pop() else {
                return Some(request);
            };
            match one.requests.send(request) {
                Ok(()) => return None,
                Err(SendError(back)) => request = back,
            }
        }
    }

    /// Starts threads with helpers until as many wait as the configuration wants. If that fails, the next job waits for
    /// its helper, and nothing else happens.
    fn make_ready(self: &Arc<Self>) {
        // Held to the end: of jobs that end at the same moment, each counts what the others have made ready.
        let mut waiting = self.waiting();
        for _ in waiting.len()..self.shared.config.ready {
            let (sender, requests) = channel();
            let (weak, helper) = (Arc::downgrade(self), self.shared.config.helper.clone());
            let thread = spawn(move || wait(&weak, &requests, &helper));
            let Ok(thread) = thread else { break };
            waiting.push(Waiting {
                id: thread.thread().id(),
                requests: sender,
            });
        }
    }

    fn carry_out(self: &Arc<Self>, request: Request, helper: Option<HelperProcess>) {
        let Request {
            spec,
            abandoned,
            answer,
        } = request;
        // Fails if nobody waits for the answer any more, and nobody needs it then.
        let _ = answer.send(job::run(&self.shared, &spec, &abandoned, helper));
        // After the job, so that it takes no time from it.
        self.make_ready();
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("kodo-jail".to_owned())
        .spawn(work)
}

/// Waits with a helper for a request, and runs it. Ends when the jail is dropped, or after [`IDLE`].
fn wait(helpers: &Weak<Helpers>, requests: &Receiver<Request>, helper: &Helper) {
    let helper = HelperProcess::start(helper).ok();
    // Without a helper there is no reason to wait; but a request may have been handed over meanwhile.
    let patience = if helper.is_some() {
        IDLE
    } else {
        Duration::ZERO
    };
    let request = match requests.recv_timeout(patience) {
        Ok(request) => Some(request),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            if let Some(helpers) = helpers.upgrade() {
                let own = thread::current().id();
                helpers.waiting().retain(|it| it.id != own);
            }
            // From here on nobody hands over any more; somebody may have done so just before.
            requests.try_recv().ok()
        }
    };
    match (request, helpers.upgrade()) {
        (Some(request), Some(helpers)) => helpers.carry_out(request, helper),
        (_, _) => {
            if let Some(mut helper) = helper {
                helper.end();
            }
        }
    }
}
