//! The gate in front of every step: closed while the process drains.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts the steps that run and, once closed, lets no other begin.
///
/// A drain lets running steps finish and leaves the rest of each run to whoever is next. A body that comes to
/// a closed gate waits for ever, and the engine's shutdown ends it there: between two steps, where nothing is
/// half done.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    inside: AtomicUsize,
    left: Notify,
}

/// A running step. Dropping it says that the step is over.
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Gate);

impl Gate {
    /// Waits until a step may begin: at once, or never.
    pub(crate) async fn pass(&self) -> Pass<'_> {
        // Counted before the look at the flag: a drain that closes in between sees this step and waits for
        // it to find out.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self);
        if self.closed.load(Ordering::SeqCst) {
            drop(pass);
            std::future::pending::<()>().await;
            unreachable!("a pending future never resolves")
        }
        pass
    }

    /// Lets no further step begin.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether the gate is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until no step runs, at most for `grace`. Whether none does.
    pub(crate) async fn quiet(&self, grace: Duration) -> bool {
        tokio::time::timeout(grace, async {
            loop {
                let left = self.left.notified();
                if self.inside.load(Ordering::SeqCst) == 0 {
                    return;
                }
                left.await;
            }
        })
        .await
        .is_ok()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        // `notify_one` keeps a permit for a waiter that is between its look and its wait.
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_gate_lets_running_steps_finish_and_none_begin() {
        let gate = Gate::default();
        let running = gate.pass().await;
        gate.close();
        assert!(!gate.quiet(Duration::from_millis(1)).await);
        assert!(
            tokio::time::timeout(Duration::from_millis(1), gate.pass())
                .await
                .is_err()
        );
        drop(running);
        assert!(gate.quiet(Duration::from_secs(1)).await);
    }
}
