//! Machines that are kept ready, so that a job does not wait for one to boot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kodo_sandbox::SandboxError;
use tokio::sync::{Mutex, mpsc};

use crate::machine::{Machine, Plan};

/// What comes of booting one.
type Booted = Result<Machine, SandboxError>;

/// Machines of one plan.
pub(crate) struct Pool {
    plan: Plan,
    /// How many are kept ready.
    ready: usize,
    /// Those that are ready, or on their way, and not yet promised to a job.
    spare: Arc<AtomicUsize>,
    sender: mpsc::UnboundedSender<Booted>,
    receiver: Mutex<mpsc::UnboundedReceiver<Booted>>,
}

impl Pool {
    pub(crate) fn new(plan: Plan, ready: usize) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            plan,
            ready,
            spare: Arc::default(),
            sender,
            receiver: Mutex::new(receiver),
        }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A machine: one that is ready, or the first that will be.
    pub(crate) async fn take(&self) -> Booted {
        // One is promised to us: a spare one, or one that is booted for us.
        let promised = self
            .spare
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |spare| {
                spare.checked_sub(1)
            });
        if promised.is_err() {
            self.boot();
        }
        let booted = self.receiver.lock().await.recv().await;
        booted.unwrap_or_else(|| {
            Err(SandboxError::Unavailable {
                reason: "the machines are switched off".to_owned(),
            })
        })
    }

    /// Waits until one is there, if any is on its way.
    pub(crate) async fn one_is_up(&self) {
        if self.ready == 0 {
            return;
        }
        // Looked at, and put back at the end of the line.
        if let Some(booted) = self.receiver.lock().await.recv().await {
            let _ = self.sender.send(booted);
        }
    }

    /// Boots as many as are missing.
    pub(crate) fn fill(&self) {
        loop {
            let more = self
                .spare
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |spare| {
                    (spare < self.ready).then_some(spare + 1)
                });
            if more.is_err() {
                return;
            }
            self.boot();
        }
    }

    fn boot(&self) {
        let (plan, sender, failed) = (self.plan.clone(), self.sender.clone(), self.sender.clone());
        let started = thread::Builder::new()
            .name("kodo-microvm-boot".to_owned())
            .spawn(move || {
                let booted = Machine::boot(&plan);
                match &booted {
                    Ok(machine) => {
                        tracing::debug!(booted_in = ?machine.booted_in(), "a machine has come up");
                    }
                    Err(error) => tracing::warn!(%error, "a machine did not come up"),
                }
                // Where the pool is gone, so is the machine, by being dropped here.
                let _ = sender.send(booted);
            });
        if let Err(error) = started {
            let reason = format!("no thread: {error}");
            let _ = failed.send(Err(SandboxError::Unavailable { reason }));
        }
    }
}
