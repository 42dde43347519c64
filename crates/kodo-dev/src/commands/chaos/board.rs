//! What everybody in a soak knows: where the services are, what clients were told, what was broken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::schedule::Fault;

/// An accepted run, as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct AcceptedRun {
    pub(crate) run: String,
    pub(crate) intent: String,
    pub(crate) key: String,
    /// Index of its intent's body in [`super::clients::INTENTS`].
    pub(crate) kind: usize,
}

/// Counted in passing, shown in progress lines and at the end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests sent, retries included.
    pub(crate) requests: AtomicU64,
    /// Requests that got no answer at all: refused, cut, timed out.
    pub(crate) unanswered: AtomicU64,
    /// Requests that were told to come again (503).
    pub(crate) unavailable: AtomicU64,
    /// Answers that were replayed by idempotency key.
    pub(crate) replayed: AtomicU64,
    /// Runs that a client has seen come to their end.
    pub(crate) ended: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How long something took, each time it happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) slowest: Duration,
}

impl Times {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.slowest = self.slowest.max(took);
    }
}

/// A service that is up; its generation tells one process from the next.
#[derive(Debug, Clone, Copy)]
struct Up {
    port: u16,
    generation: u64,
    /// It said so once; it may have lost its database since.
    ready: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Each service that is up.
    services: Vec<Option<Up>>,
    intents: BTreeMap<String, String>,
    runs: Vec<AcceptedRun>,
    demos: Vec<String>,
    faults: BTreeMap<Fault, u64>,
    /// Restarts of services that became ready.
    restarts: Times,
    /// Restarts of the database that took connections.
    databases: Times,
    /// What nobody may ever see; the verdict adds what the rows say.
    wrong: Vec<String>,
}

/// The board itself.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    pub(crate) counts: Counts,
}

impl Board {
    /// A board for so many services, all of them down.
    pub(crate) fn new(services: usize) -> Self {
        let board = Self::default();
        board.state().services = vec![None; services];
        board
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a service listens, or with `None` that it does not any more.
    pub(crate) fn set_service(&self, index: usize, at: Option<(u16, u64)>) {
        self.state().services[index] = at.map(|(port, generation)| Up {
            port,
            generation,
            ready: false,
        });
    }

    /// A service became ready.
    pub(crate) fn set_ready(&self, index: usize) {
        if let Some(up) = &mut self.state().services[index] {
            up.ready = true;
        }
    }

    /// Whether a service is up and has been ready.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.state().services[index].is_some_and(|up| up.ready)
    }

    /// Whether one of them is.
    pub(crate) fn is_any_ready(&self) -> bool {
        self.state().services.iter().flatten().any(|up| up.ready)
    }

    /// Whether a service is still the process of that generation.
    pub(crate) fn is_generation(&self, index: usize, generation: u64) -> bool {
        self.state().services[index].is_some_and(|up| up.generation == generation)
    }

    /// The port of a service, if it is up.
    pub(crate) fn port(&self, index: usize) -> Option<u16> {
        let state = self.state();
        state.services[index % state.services.len()].map(|up| up.port)
    }

    /// How many services are up.
    pub(crate) fn services_up(&self) -> usize {
        self.state().services.iter().flatten().count()
    }

    /// A client was told the id of its intent.
    pub(crate) fn intent(&self, key: String, id: String) {
        self.state().intents.insert(key, id);
    }

    /// A client was told the id of its run.
    pub(crate) fn accepted(&self, run: AcceptedRun) {
        self.state().runs.push(run);
    }

    /// A crash demo was accepted.
    pub(crate) fn demo(&self, id: String) {
        self.state().demos.push(id);
    }

    /// Something was broken.
    pub(crate) fn broke(&self, fault: Fault) {
        *self.state().faults.entry(fault).or_default() += 1;
    }

    /// A restarted service became ready.
    pub(crate) fn restarted(&self, took: Duration) {
        self.state().restarts.add(took);
    }

    /// A restarted database takes connections.
    pub(crate) fn database_back(&self, took: Duration) {
        self.state().databases.add(took);
    }

    /// Something that nobody may ever see.
    pub(crate) fn wrong(&self, what: impl Into<String>) {
        self.state().wrong.push(what.into());
    }

    pub(crate) fn intents(&self) -> BTreeMap<String, String> {
        self.state().intents.clone()
    }

    pub(crate) fn runs(&self) -> Vec<AcceptedRun> {
        self.state().runs.clone()
    }

    pub(crate) fn demos(&self) -> Vec<String> {
        self.state().demos.clone()
    }

    pub(crate) fn faults(&self) -> BTreeMap<Fault, u64> {
        self.state().faults.clone()
    }

    /// Restarts of services, restarts of the database.
    pub(crate) fn recoveries(&self) -> (Times, Times) {
        let state = self.state();
        (state.restarts.clone(), state.databases.clone())
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.state().wrong.clone()
    }

    /// One line of how far it is.
    pub(crate) fn progress(&self) -> String {
        let (accepted, demos, faults, wrong) = {
            let state = self.state();
            let faults: u64 = state.faults.values().sum();
            (
                state.runs.len(),
                state.demos.len(),
                faults,
                state.wrong.len(),
            )
        };
        format!(
            "{accepted} runs and {demos} crash demos accepted, {} runs seen to end, {} requests ({} without an \
             answer, {} told 503), {faults} faults, {} services up, {wrong} violations",
            read(&self.counts.ended),
            read(&self.counts.requests),
            read(&self.counts.unanswered),
            read(&self.counts.unavailable),
            self.services_up(),
        )
    }
}
