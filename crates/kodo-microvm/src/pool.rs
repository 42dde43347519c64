//! Machines that are kept ready, so that a job does not wait for one to boot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kodo_sandbox::SandboxError;
use tokio::sync::{Mutex, mpsc};

/// What comes of booting one.
type Booted<M> = Result<M, SandboxError>;

/// Machines that are all alike.
pub(crate) struct Pool<M> {
    /// Boots one, and takes the time that it takes.
    boots: Arc<dyn Fn() -> Booted<M> + Send + Sync>,
    /// How many are kept ready.
    ready: usize,
    /// Those that are ready, or on their way, and not yet promised to a job.
    spare: Arc<AtomicUsize>,
    sender: mpsc::UnboundedSender<Booted<M>>,
    receiver: Mutex<mpsc::UnboundedReceiver<Booted<M>>>,
}

impl<M: Send + 'static> Pool<M> {
    pub(crate) fn new(boots: Arc<dyn Fn() -> Booted<M> + Send + Sync>, ready: usize) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            boots,
            ready,
            spare: Arc::default(),
            sender,
            receiver: Mutex::new(receiver),
        }
    }

    /// A machine: one that is ready, or the first that will be.
    pub(crate) async fn take(&self) -> Booted<M> {
        // One is promised to us: a spare one, or one that is booted for us.
        let promised = self
            .spare
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |spare| {
                spare.checked_sub(1)
            });
        if promised.is_err() {
            self.boot();
        }
        let promise = Promise(&self.spare);
        let booted = self.receiver.lock().await.recv().await;
        std::mem::forget(promise);
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
        let (boots, sender) = (Arc::clone(&self.boots), self.sender.clone());
        let failed = sender.clone();
        let started = thread::Builder::new()
            .name("kodo-microvm-boot".to_owned())
            .spawn(move || {
                let booted = boots();
                if let Err(error) = &booted {
                    tracing::warn!(%error, "a machine did not come up");
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

/// A machine that is promised to a job. Whoever waits no longer for it leaves it to the next one.
struct Promise<'a>(&'a AtomicUsize);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_machine_that_nobody_waits_for_any_more_is_the_next_ones() {
        let booted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&booted);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let boots = move || {
            wait.lock().unwrap().recv().unwrap();
            Ok(counted.fetch_add(1, Ordering::AcqRel))
        };
        let pool = Pool::new(Arc::new(boots), 1);
        pool.fill();
        {
            // Begins to wait, and gives up.
            let mut given_up = pin!(pool.take());
            let polled = poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context))).await;
            assert!(polled.is_pending());
        }
        pool.fill();
        release.send(()).unwrap();
        assert_eq!(pool.take().await.unwrap(), 0);
        assert_eq!(
            booted.load(Ordering::Acquire),
            1,
            "no second one was booted"
        );
        pool.fill();
        release.send(()).unwrap();
        assert_eq!(pool.take().await.unwrap(), 1);
    }
}
