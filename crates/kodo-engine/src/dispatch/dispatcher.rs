//! The dispatcher: which runs this process carries out, and which wait because it has no spare capacity.
//!
//! Everything here is a hint. A waiting run is also a row, and a run that is lost here is found by the sweep of this
//! process or another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kodo_contract::{WorkflowId, execution_id};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::failure::RunFailure;

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
    /// The executions of this process, by workflow: what each calls itself.
    executing: HashMap<String, String>,
}

/// A run that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    workflow_id: WorkflowId,
    found: Found,
}

/// What the engine's tables have of a run that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet.
    Nothing,
    /// A workflow that nobody carries out.
    Workflow,
    /// A workflow in the queue, and why it cannot be carried out, if so.
    Queued(Option<RunFailure>),
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

    /// Offers a run. One that is known here already is ignored.
    pub(crate) fn offer(&self, workflow_id: WorkflowId, found: Found) {
        let mut state = self.state();
        if state.waiting.len() >= MAX_WAITING || state.knows(workflow_id.as_str()) {
            return;
        }
        state.offered.insert(workflow_id.to_string());
        state.waiting.push_back(Offer { workflow_id, found });
        drop(state);
        self.wake.notify_one();
    }

    /// Waits for a run and for capacity. Returns the execution of it.
    pub(crate) async fn next(self: &Arc<Self>) -> Execution {
        loop {
            let woken = self.wake.notified();
            if let Some(next) = self.take() {
                return next;
            }
            woken.await;
        }
    }

    fn take(self: &Arc<Self>) -> Option<Execution> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        let permit = Arc::clone(&self.capacity).try_acquire_owned().ok()?;
        let offer = state.waiting.pop_front()?;
        let id = execution_id();
        state.offered.remove(offer.workflow_id.as_str());
        state
            .executing
            .insert(offer.workflow_id.to_string(), id.clone());
        Some(Execution {
            dispatcher: Arc::clone(self),
            id,
            offer,
            permit: Mutex::new(Some(permit)),
        })
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

    /// The workflows that are carried out here.
    pub(crate) fn executing(&self) -> Vec<String> {
        self.state().executing.keys().cloned().collect()
    }

    /// Whether the execution of the workflow that calls itself so is here.
    pub(crate) fn executes(&self, workflow_id: &str, id: &str) -> bool {
        let state = self.state();
        state.executing.get(workflow_id).is_some_and(|it| it == id)
    }

    /// Whether this process works on a workflow, or is about to.
    pub(crate) fn knows(&self, workflow_id: &str) -> bool {
        self.state().knows(workflow_id)
    }

    /// Forgets every run that has not begun, because the launch that it was meant for is over.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.offered.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if something did, the state would still be a valid hint.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn knows(&self, workflow_id: &str) -> bool {
        self.executing.contains_key(workflow_id) || self.offered.contains(workflow_id)
    }
}

/// A run that this process carries out. Dropping it says that this is over.
#[derive(Debug)]
pub(crate) struct Execution {
    dispatcher: Arc<Dispatcher>,
    /// What it calls itself, in the claim and in the engine's row.
    pub(crate) id: String,
    offer: Offer,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Execution {
    /// The workflow of the run.
    pub(crate) fn workflow_id(&self) -> &WorkflowId {
        &self.offer.workflow_id
    }

    /// What the engine's tables had of it when it was offered.
    pub(crate) fn found(&self) -> &Found {
        &self.offer.found
    }

    /// Waits for a permit if the execution has none.
    pub(crate) async fn take_place(&self) {
        if self.permit().is_none() {
            // Fails only if the semaphore is closed, which never happens.
            let permit = Arc::clone(&self.dispatcher.capacity).acquire_owned().await;
            *self.permit() = permit.ok();
        }
    }

    /// Gives the permit back, for as long as the execution only waits.
    pub(crate) fn leave(&self) {
        let permit = self.permit().take();
        if permit.is_some() {
            drop(permit);
            self.dispatcher.wake.notify_one();
        }
    }

    fn permit(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        // Nothing panics while the lock is held.
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let workflow_id = self.offer.workflow_id.as_str();
        self.dispatcher.state().executing.remove(workflow_id);
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use kodo_contract::RunId;

    use super::*;

    fn workflow() -> WorkflowId {
        RunId::generate().workflow_id()
    }

    #[tokio::test]
    async fn a_run_beyond_the_bound_waits_until_one_ends() {
        let dispatcher = Arc::new(Dispatcher::new(1));
        let (first, second) = (workflow(), workflow());
        dispatcher.offer(first.clone(), Found::Nothing);
        dispatcher.offer(second.clone(), Found::Workflow);
        let one = dispatcher.next().await;
        assert_eq!((one.workflow_id(), one.found()), (&first, &Found::Nothing));
        assert!(dispatcher.take().is_none(), "no capacity");
        drop(one);
        let other = dispatcher.next().await;
        assert_eq!(
            other.offer,
            Offer {
                workflow_id: second,
                found: Found::Workflow
            }
        );
    }

    #[test]
    fn a_run_that_is_known_is_not_offered_again() {
        let dispatcher = Arc::new(Dispatcher::new(8));
        let run = workflow();
        let offer = || dispatcher.offer(run.clone(), Found::Nothing);
        offer();
        offer();
        let execution = dispatcher.take().unwrap();
        assert!(dispatcher.executes(run.as_str(), &execution.id));
        assert!(!dispatcher.executes(run.as_str(), "another"));
        offer();
        assert!(dispatcher.take().is_none(), "it runs");
        drop(execution);
        assert!(!dispatcher.knows(run.as_str()));
        offer();
        assert!(dispatcher.take().is_some());
    }

    #[tokio::test]
    async fn an_execution_that_waits_gives_its_place_to_others() {
        let dispatcher = Arc::new(Dispatcher::new(1));
        let (first, second) = (workflow(), workflow());
        dispatcher.offer(first.clone(), Found::Nothing);
        let waiting = dispatcher.next().await;
        dispatcher.offer(second, Found::Nothing);
        assert!(dispatcher.take().is_none(), "no capacity");
        waiting.leave();
        let other = dispatcher.next().await;
        assert!(
            dispatcher.knows(first.as_str()),
            "it runs here all the same"
        );
        drop(other);
        waiting.take_place().await;
        assert_eq!(dispatcher.capacity.available_permits(), 0);
    }
}
