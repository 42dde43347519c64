//! Which runs this process works on, and which wait for room.
//!
//! Everything here is a hint. What waits is also a `queued` row, and what is forgotten here is found by the
//! sweep, in this process or another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kodo_contract::RunId;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Most runs that wait in memory. Beyond that they wait as rows alone.
const MAX_WAITING: usize = 10_000;

/// The runs of this process, bounded.
#[derive(Debug)]
pub(crate) struct Starter {
    room: Arc<Semaphore>,
    book: Mutex<Book>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Book {
    /// Offered, in order, and waiting for room.
    waiting: VecDeque<RunId>,
    /// The same, for looking up, and whether the sweep offered it.
    offered: HashMap<RunId, bool>,
    /// Being handed to the engine; each holds its room until its body takes it over.
    starting: HashMap<String, OwnedSemaphorePermit>,
    /// Bodies that run here, by workflow id.
    executing: HashSet<String>,
}

impl Starter {
    /// Room for `limit` runs at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(limit)),
            book: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Offers a run that was accepted here just now. Nothing happens where it is known here already.
    pub(crate) fn offer(&self, run_id: &RunId) {
        self.wait(run_id, false);
    }

    /// Offers a run that the sweep found. Every worker's sweep finds the same ones, so that by the time there
    /// is room for it somebody else may have started it.
    pub(crate) fn offer_swept(&self, run_id: &RunId) {
        self.wait(run_id, true);
    }

    fn wait(&self, run_id: &RunId, swept: bool) {
        let mut book = self.book();
        if book.waiting.len() >= MAX_WAITING
            || book.executing.contains(run_id.as_str())
            || book.starting.contains_key(run_id.as_str())
            || book.offered.contains_key(run_id)
        {
            return;
        }
        book.offered.insert(run_id.clone(), swept);
        book.waiting.push_back(run_id.clone());
        drop(book);
        self.wake.notify_one();
    }

    /// The next run to hand to the engine, once there is one and room for it, and whether the sweep offered it.
    pub(crate) async fn next(&self) -> (RunId, bool) {
        loop {
            let woken = self.wake.notified();
            if let Some(next) = self.take() {
                return next;
            }
            woken.await;
        }
    }

    fn take(&self) -> Option<(RunId, bool)> {
        let mut book = self.book();
        if book.waiting.is_empty() {
            return None;
        }
        let permit = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let run_id = book.waiting.pop_front()?;
        let swept = book.offered.remove(&run_id).unwrap_or_default();
        book.starting.insert(run_id.as_str().to_owned(), permit);
        Some((run_id, swept))
    }

    /// How many more runs could be offered before waiting in memory is pointless.
    pub(crate) fn appetite(&self) -> usize {
        let waiting = self.book().waiting.len();
        (self.room.available_permits() + MAX_WAITING / 10).saturating_sub(waiting)
    }

    /// Gives back the room of a run whose body did not begin here. Whether it was still held.
    pub(crate) fn forget(&self, run_id: &RunId) -> bool {
        let forgotten = self.book().starting.remove(run_id.as_str()).is_some();
        self.wake.notify_one();
        forgotten
    }

    /// Says that a body begins. The returned value says so until it is dropped.
    pub(crate) fn enter(self: &Arc<Self>, workflow_id: &str) -> Execution {
        let mut book = self.book();
        let permit = book.starting.remove(workflow_id);
        book.executing.insert(workflow_id.to_owned());
        Execution {
            starter: Arc::clone(self),
            workflow_id: workflow_id.to_owned(),
            permit,
        }
    }

    /// The workflows whose bodies run here.
    pub(crate) fn executing(&self) -> Vec<String> {
        self.book().executing.iter().cloned().collect()
    }

    /// Room for a body that came without: a recovered one. Waits until there is some.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed; if it were, there would be no bound to keep.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Whether this process works on a workflow, or is about to.
    pub(crate) fn knows(&self, workflow_id: &str) -> bool {
        let book = self.book();
        book.executing.contains(workflow_id)
            || book.starting.contains_key(workflow_id)
            || RunId::parse(workflow_id).is_some_and(|run_id| book.offered.contains_key(&run_id))
    }

    /// Forgets everything that has not begun: the engine it was meant for is gone.
    pub(crate) fn clear(&self) {
        let mut book = self.book();
        book.waiting.clear();
        book.offered.clear();
        book.starting.clear();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while the book is held; if something did, the book is still a valid hint.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that runs in this process.
#[derive(Debug)]
pub(crate) struct Execution {
    starter: Arc<Starter>,
    workflow_id: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Execution {
    /// Whether the start that led here holds a handle and will report the end. A recovered body came through
    /// the engine's queue, and nobody waits for it.
    pub(crate) fn is_started_here(&self) -> bool {
        self.permit.is_some()
    }

    /// Waits for room, where the body came without.
    pub(crate) async fn take_room(&mut self) {
        if self.permit.is_none() {
            self.permit = self.starter.room().await;
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.starter.book().executing.remove(&self.workflow_id);
        self.permit.take();
        self.starter.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_beyond_the_bound_waits_until_one_ends() {
        let starter = Arc::new(Starter::new(1));
        let (first, second) = (RunId::generate(), RunId::generate());
        starter.offer(&first);
        starter.offer(&second);
        assert_eq!(starter.next().await, (first.clone(), false));
        let body = starter.enter(first.as_str());
        assert!(body.is_started_here());
        assert!(starter.take().is_none(), "no room");
        drop(body);
        assert_eq!(starter.next().await, (second, false));
    }

    #[test]
    fn a_run_that_is_known_is_not_offered_again() {
        let starter = Arc::new(Starter::new(8));
        let run = RunId::generate();
        starter.offer(&run);
        starter.offer(&run);
        assert_eq!(starter.take(), Some((run.clone(), false)));
        starter.offer(&run);
        assert!(starter.take().is_none(), "it is being started");
        let body = starter.enter(run.as_str());
        starter.offer(&run);
        assert!(starter.take().is_none(), "it runs");
        drop(body);
        assert!(!starter.knows(run.as_str()));
    }

    #[tokio::test]
    async fn a_recovered_body_takes_room_too() {
        let starter = Arc::new(Starter::new(1));
        let mut body = starter.enter("run_x");
        assert!(!body.is_started_here());
        body.take_room().await;
        let run = RunId::generate();
        starter.offer_swept(&run);
        assert_eq!(starter.take(), None, "no room");
        drop(body);
        assert_eq!(starter.take(), Some((run, true)));
    }
}
