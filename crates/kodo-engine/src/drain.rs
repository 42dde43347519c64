//! Draining: running steps finish, and no further step begins.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts the running steps and, once draining has begun, lets no other begin.
///
/// A workflow body that comes to its next step during a drain waits for ever, and the engine's shutdown ends it
/// there: between two steps, where no effect is half done. The rest of its run is left to the next worker.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    begun: AtomicBool,
    running: AtomicUsize,
    finished: Notify,
}

/// A running step. Dropping it says that the step is over.
#[derive(Debug)]
pub(crate) struct RunningStep<'a>(&'a Drain);

impl Drain {
    /// Waits until a step may begin: returns at once, or never during a drain.
    pub(crate) async fn begin_step(&self) -> RunningStep<'_> {
        // Counted before the flag is read: a drain that begins in between sees this step and waits until it has
        // read the flag.
        self.running.fetch_add(1, Ordering::SeqCst);
        let step = RunningStep(self);
        if self.has_begun() {
            drop(step);
            std::future::pending().await
        } else {
            step
        }
    }

    /// Says that a running step only waits for something outside: a drain does not wait for it.
    pub(crate) fn idle(&self) -> IdleStep<'_> {
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.finished.notify_one();
        IdleStep(self)
    }

    /// Lets no further step begin.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }

    /// Whether draining has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until no step runs, at most for `grace`. Returns whether none does.
    pub(crate) async fn steps_finished(&self, grace: Duration) -> bool {
        let all = async {
            loop {
                let finished = self.finished.notified();
                if self.running.load(Ordering::SeqCst) == 0 {
                    return;
                }
                finished.await;
            }
        };
        tokio::time::timeout(grace, all).await.is_ok()
    }
}

/// A running step that only waits for something outside, and is not counted meanwhile. Dropping it counts the step again.
#[derive(Debug)]
pub(crate) struct IdleStep<'a>(&'a Drain);

impl IdleStep<'_> {
    /// Waits until the step may go on: returns at once, or never during a drain.
    pub(crate) async fn go_on(self) {
        let drain = self.0;
        // Counted before the flag is read, as in `begin_step`.
        drop(self);
        if drain.has_begun() {
            let _idle = drain.idle();
            std::future::pending().await
        }
    }
}

impl Drop for IdleStep<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for RunningStep<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        // `notify_one` keeps a permit for a waiter that has read the count and does not wait yet.
        self.0.finished.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_lets_running_steps_finish_and_none_begin() {
        let drain = Drain::default();
        let running = drain.begin_step().await;
        drain.begin();
        assert!(!drain.steps_finished(Duration::from_millis(1)).await);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), drain.begin_step())
                .await
                .is_err()
        );
        drop(running);
        assert!(drain.steps_finished(Duration::from_secs(1)).await);
    }
    #[tokio::test]
    async fn a_drain_does_not_wait_for_a_step_that_is_idle_and_lets_it_not_go_on() {
        let drain = Drain::default();
        let running = drain.begin_step().await;
        drain.idle().go_on().await;
        let idle = drain.idle();
        drain.begin();
        assert!(drain.steps_finished(Duration::from_secs(1)).await);
        let goes_on = tokio::time::timeout(Duration::from_millis(1), idle.go_on());
        assert!(goes_on.await.is_err());
        drop(running);
        assert!(drain.steps_finished(Duration::from_secs(1)).await);
    }
}
