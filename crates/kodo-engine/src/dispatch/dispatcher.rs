//! The dispatcher: which runs this process works on, and which wait because it has no spare capacity.
//!
//! Everything here is a hint. A waiting run is also a `queued` row, and a run that is lost here is found by the sweep of
//! this process or another.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kodo_contract::{RunId, WorkflowId, execution_id};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Most runs that wait in memory. Further ones wait only as rows.
const MAX_WAITING: usize = 10_000;

/// The runs of this process, bounded.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    capacity: Arc<Semaphore>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Offered runs that wait for capacity, in order.
    waiting: VecDeque<Offer>,
    /// The workflows of the same runs, for look-ups.
    offered: HashSet<String>,
    /// Runs that are being handed to the engine, by workflow id. Each holds its permit until its body takes it.
    starting: HashMap<String, OwnedSemaphorePermit>,
    /// The bodies that run here, by workflow: their own ids. More than one if a client of the engine resumed a workflow
    /// that was running.
    executing: HashMap<String, Vec<String>>,
    /// The workflows of which a body waits here until another execution has ended.
    waiting_bodies: HashSet<String>,
}

/// A run that can be handed to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) run_id: RunId,
    /// Its workflow.
    pub(crate) workflow_id: WorkflowId,
    /// Whether the sweep found it, and not the request that made it.
    pub(crate) swept: bool,
}

impl State {
    fn knows(&self, workflow_id: &str) -> bool {
        self.executing.contains_key(workflow_id)
            || self.starting.contains_key(workflow_id)
            || self.offered.contains(workflow_id)
    }
}

impl Dispatcher {
    /// Capacity for `limit` runs at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            capacity: Arc::new(Semaphore::new(limit)),
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Offers a run that was accepted here just now. A run that is known here already is ignored.
    pub(crate) fn offer(&self, run_id: &RunId) {
        self.wait(Offer {
            run_id: run_id.clone(),
            workflow_id: run_id.workflow_id(),
            swept: false,
        });
    }

    /// Offers a run that the sweep found. The sweep of every worker finds the same runs, so another worker may have
    /// started it by the time this one has capacity.
    pub(crate) fn offer_swept(&self, run_id: RunId, workflow_id: WorkflowId) {
        self.wait(Offer {
            run_id,
            workflow_id,
            swept: true,
        });
    }

    fn wait(&self, offer: Offer) {
        let mut state = self.state();
        if state.waiting.len() >= MAX_WAITING || state.knows(offer.workflow_id.as_str()) {
            return;
        }
        state.offered.insert(offer.workflow_id.to_string());
        state.waiting.push_back(offer);
        drop(state);
        self.wake.notify_one();
    }

    /// Waits for a run and for capacity. Returns the run to hand to the engine.
    pub(crate) async fn next(&self) -> Offer {
        loop {
            let woken = self.wake.notified();
            if let Some(next) = self.take() {
                return next;
            }
            woken.await;
        }
    }

    fn take(&self) -> Option<Offer> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        let permit = Arc::clone(&self.capacity).try_acquire_owned().ok()?;
        let offer = state.waiting.pop_front()?;
        state.offered.remove(offer.workflow_id.as_str());
        state.starting.insert(offer.workflow_id.to_string(), permit);
        Some(offer)
    }

    /// How many more runs are worth offering: those that can start soon.
    pub(crate) fn spare_capacity(&self) -> usize {
        let waiting = self.state().waiting.len();
        (self.capacity.available_permits() + MAX_WAITING / 10).saturating_sub(waiting)
    }

    /// Whether one more run could begin here right now.
    pub(crate) fn has_room(&self) -> bool {
        self.capacity.available_permits() > 0
    }

    /// Releases the permit of a run whose body did not begin here. Returns whether it was still held.
    pub(crate) fn release(&self, workflow_id: &WorkflowId) -> bool {
        let released = self.state().starting.remove(workflow_id.as_str()).is_some();
        self.wake.notify_one();
        released
    }

    /// Records that a body begins; dropping the returned value records its end.
    pub(crate) fn begin(self: &Arc<Self>, workflow_id: &str) -> Execution {
        let mut state = self.state();
        let permit = state.starting.remove(workflow_id);
        let id = execution_id();
        let bodies = state.executing.entry(workflow_id.to_owned()).or_default();
        bodies.push(id.clone());
        Execution {
            dispatcher: Arc::clone(self),
            id,
            workflow_id: workflow_id.to_owned(),
            started_here: permit.is_some(),
            permit: Mutex::new(permit),
            waits: false,
        }
    }

    /// The workflows whose bodies run here.
    pub(crate) fn executing(&self) -> Vec<String> {
        self.state().executing.keys().cloned().collect()
    }

    /// Whether a body of the workflow runs here that has this id of its own.
    pub(crate) fn executes(&self, workflow_id: &str, id: &str) -> bool {
        let state = self.state();
        let bodies = state.executing.get(workflow_id);
        bodies.is_some_and(|bodies| bodies.iter().any(|it| it == id))
    }

    /// Waits for a permit, for a recovered body, which begins without one.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // Fails only if the semaphore is closed, which never happens.
        Arc::clone(&self.capacity).acquire_owned().await.ok()
    }

    /// Whether this process works on a workflow, or is about to.
    pub(crate) fn knows(&self, workflow_id: &str) -> bool {
        self.state().knows(workflow_id)
    }

    /// Forgets every run that has not begun, because the engine that it was meant for is gone.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.offered.clear();
        state.starting.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if something did, the state would still be a valid hint.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that runs in this process.
#[derive(Debug)]
pub(crate) struct Execution {
    dispatcher: Arc<Dispatcher>,
    /// What the claim of this body says of who holds it.
    pub(crate) id: String,
    workflow_id: String,
    started_here: bool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Whether it is the one that waits until another execution of the workflow has ended.
    waits: bool,
}

impl Execution {
    /// Whether this process started the run and waits for its end. A recovered body came through the engine's queue,
    /// and nothing waits for it.
    pub(crate) fn is_started_here(&self) -> bool {
        self.started_here
    }

    /// Waits for a permit if the body has none.
    pub(crate) async fn take_place(&self) {
        if self.permit().is_none() {
            let permit = self.dispatcher.permit().await;
            *self.permit() = permit;
        }
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        // Nothing panics while the lock is held.
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns false if another body of the workflow waits here already: one is enough. Otherwise this one is it, and it
    /// gives its permit back meanwhile.
    pub(crate) fn wait_for_other(&mut self) -> bool {
        if !self.waits {
            let mut state = self.dispatcher.state();
            self.waits = state.waiting_bodies.insert(self.workflow_id.clone());
        }
        self.leave();
        self.waits
    }

    /// Gives the permit back, for as long as the body only waits.
    pub(crate) fn leave(&self) {
        let permit = self.permit().take();
        if permit.is_some() {
            drop(permit);
            self.dispatcher.wake.notify_one();
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let mut state = self.dispatcher.state();
        if let Entry::Occupied(mut bodies) = state.executing.entry(self.workflow_id.clone()) {
            bodies.get_mut().retain(|id| *id != self.id);
            if bodies.get().is_empty() {
                bodies.remove();
            }
        }
        if self.waits {
            state.waiting_bodies.remove(&self.workflow_id);
        }
        drop(state);
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_beyond_the_bound_waits_until_one_ends() {
        let dispatcher = Arc::new(Dispatcher::new(1));
        let (first, second) = (RunId::generate(), RunId::generate());
        dispatcher.offer(&first);
        dispatcher.offer(&second);
        assert_eq!(dispatcher.next().await.run_id, first);
        let body = dispatcher.begin(first.as_str());
        assert!(body.is_started_here());
        assert!(dispatcher.take().is_none(), "no capacity");
        drop(body);
        assert_eq!(dispatcher.next().await.run_id, second);
    }

    #[test]
    fn a_run_that_is_known_is_not_offered_again() {
        let dispatcher = Arc::new(Dispatcher::new(8));
        let run = RunId::generate();
        dispatcher.offer(&run);
        dispatcher.offer(&run);
        let taken = dispatcher.take().unwrap();
        assert_eq!((&taken.run_id, taken.swept), (&run, false));
        dispatcher.offer(&run);
        assert!(dispatcher.take().is_none(), "it is being started");
        let body = dispatcher.begin(run.as_str());
        dispatcher.offer(&run);
        assert!(dispatcher.take().is_none(), "it runs");
        drop(body);
        assert!(!dispatcher.knows(run.as_str()));
    }

    #[tokio::test]
    async fn a_recovered_body_takes_capacity_too() {
        let dispatcher = Arc::new(Dispatcher::new(1));
        let body = dispatcher.begin("run_x");
        assert!(!body.is_started_here());
        body.take_place().await;
        let run = RunId::generate();
        dispatcher.offer_swept(run.clone(), run.workflow_id());
        assert_eq!(dispatcher.take(), None, "no capacity");
        drop(body);
        let taken = dispatcher.take().unwrap();
        assert_eq!((taken.run_id, taken.swept), (run, true));
    }

    #[tokio::test]
    async fn a_body_that_waits_gives_its_place_to_others() {
        let dispatcher = Arc::new(Dispatcher::new(1));
        let (first, second) = (RunId::generate(), RunId::generate());
        dispatcher.offer(&first);
        dispatcher.next().await;
        let waiting = dispatcher.begin(first.as_str());
        dispatcher.offer(&second);
        assert_eq!(dispatcher.take(), None, "no capacity");
        waiting.leave();
        assert_eq!(dispatcher.next().await.run_id, second);
        let other = dispatcher.begin(second.as_str());
        assert!(
            dispatcher.knows(first.as_str()),
            "it runs here all the same"
        );
        drop(other);
        waiting.take_place().await;
        assert_eq!(dispatcher.capacity.available_permits(), 0);
    }

    #[test]
    fn the_end_of_one_of_two_bodies_does_not_hide_the_other() {
        let dispatcher = Arc::new(Dispatcher::new(8));
        let first = dispatcher.begin("run_x");
        let mut second = dispatcher.begin("run_x");
        let mut third = dispatcher.begin("run_x");
        assert!(second.wait_for_other() && second.wait_for_other());
        assert!(!third.wait_for_other(), "one waits already");
        drop(third);
        drop(second);
        assert!(dispatcher.executes("run_x", &first.id) && dispatcher.knows("run_x"));
        assert!(dispatcher.begin("run_x").wait_for_other(), "none waits now");
        drop(first);
        assert!(!dispatcher.knows("run_x"));
    }
}
